"""Watch an encoder from outside: the features that a smaller one is aligned by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import DataError, compose
from aerogel.slim.families.family import find_family
from aerogel.slim.families.sites import Sites


@dataclass(frozen=True)
class Bottleneck:
    """Hold the widened channels of one block, H of arXiv 2312.05284.

    ``qkv`` is [N, h, w, 3 · heads · dims], all queries before all keys before all values, each head by head:
    N = B · windows and h = w = ``window`` where attention sees windows, else N = B and h = w = g. ``hidden``
    is the MLP's after its activation, [B, g, g, channels].
    """

    qkv: Tensor
    hidden: Tensor
    window: int
    heads: int

    @property
    def query(self) -> Tensor:
        """Return the queries [N, h, w, heads · dims]."""
        return self.qkv.chunk(3, dim=-1)[0]

    @property
    def key(self) -> Tensor:
        """Return the keys [N, h, w, heads · dims]."""
        return self.qkv.chunk(3, dim=-1)[1]

    @property
    def value(self) -> Tensor:
        """Return the values [N, h, w, heads · dims]."""
        return self.qkv.chunk(3, dim=-1)[2]


@dataclass(frozen=True)
class Features:
    """Hold what one encoding of B images of g x g tokens gave.

    ``embedding`` is the encoder's output [B, C, g, g]. SAM-HQ also gives ``intermediate``, the outputs
    [B, g, g, width] of its global blocks, and with its decoder ``details``, what that makes of them,
    [B, c, 4 g, 4 g]. ``residuals`` are the residual stream [B, g, g, width] where it enters the first block
    and, of every block, after attention and after the MLP: E of arXiv 2312.05284. ``bottlenecks`` are H of
    every block. Both are empty if they were not asked for. ``real`` [B, g, g] tells the tokens that count;
    None counts all, with those that only fill up windows.
    """

    embedding: Tensor
    details: Tensor | None = None
    intermediate: tuple[Tensor, ...] = ()
    residuals: tuple[Tensor, ...] = ()
    bottlenecks: tuple[Bottleneck, ...] = ()
    real: Tensor | None = None


def mask_tokens(scaled: Sequence[tuple[int, int]], grid: int, patch_px: int) -> Tensor:
    """Tell which tokens see the photo: boolean [B, grid, grid], false where all pixels are padding.

    ``scaled`` are the (height, width) of each photo on its canvas, in pixels, as a ``Placement`` has them.
    """
    starts = torch.arange(grid) * patch_px
    sides = torch.tensor(scaled, dtype=torch.long).reshape(-1, 2)
    rows, columns = starts < sides[:, :1], starts < sides[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def mask_windows(real: Tensor, window: int) -> Tensor:
    """Arrange a mask of tokens [B, g, g] as attention sees them: [B · windows, window, window].

    Windows go row by row; those at the lower and right edge are filled up with tokens that are not real.
    A ``window`` of 0 is the whole image.
    """
    if window == 0:
        return real
    low, right = -real.shape[1] % window, -real.shape[2] % window
    whole = functional.pad(real, (0, right, 0, low))
    parted: Tensor = whole.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return parted.reshape(-1, window, window)


class Observer:
    """Runs an encoder and keeps what passed through it; made by :func:`observe`."""

    def __init__(self, sites: Sites) -> None:
        """Watch the encoder at these ``sites``."""
        self.sites = sites
        self._residuals: list[Tensor] = []
        self._qkv: list[Tensor] = []
        self._hidden: list[Tensor] = []
        self._thread: int | None = None  # that encodes at the moment; others may pass the same modules
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        """The features of the last call of ``encode``.

        Raises:
            DataError: nothing was encoded yet, or the watching has ended.
        """
        if self._features is None:
            remedy = "call encode(pixels) first, within the block"
            raise DataError(compose("an encoding to look at", "none", remedy))
        return self._features

    def encode(self, pixels: Tensor, real: Tensor | None = None) -> Features:
        """Run the encoder on ``pixels`` [B, 3, S, S] and return its features.

        ``real`` [B, g, g] is what :func:`mask_tokens` gave; it is carried along. With gradients
        enabled, the features are part of the graph.
        """
        self._features = None
        self._thread = get_ident()
        try:
            output = self.sites.encoder(pixels)
            intermediate = tuple(getattr(output, "intermediate_embeddings", None) or ())
            blocks = self.sites.blocks if self._qkv else ()
            self._features = Features(
                embedding=output.last_hidden_state,
                details=self.sites.read_details(intermediate),
                intermediate=intermediate,
                residuals=tuple(self._residuals),
                bottlenecks=tuple(
                    Bottleneck(qkv, hidden, block.window, block.heads)
                    for block, qkv, hidden in zip(blocks, self._qkv, self._hidden, strict=True)
                ),
                real=None if real is None else real.to(pixels.device),
            )
        finally:
            # Recomputed blocks pass the hooks again in the backward pass, which must not count.
            self._thread = None
            self._forget()
        return self._features

    def close(self) -> None:
        """Let go of the features."""
        self._features = None
        self._forget()

    def hang(self, *, residuals: bool, bottlenecks: bool) -> Iterator[Any]:
        """Hang the hooks that are needed, and give each."""
        for index, block in enumerate(self.sites.blocks):
            if residuals:
                if index == 0:
                    yield block.layer.register_forward_pre_hook(self._take_input(self._residuals))
                yield block.norm.register_forward_pre_hook(self._take_input(self._residuals))
                yield block.layer.register_forward_hook(self._take_output(self._residuals))
            if bottlenecks:
                yield block.qkv.register_forward_hook(self._take_output(self._qkv))
                yield block.narrow.register_forward_pre_hook(self._take_input(self._hidden))

    # Hooks return None: what they return would stand in for the tensor.
    def _take_input(self, into: list[Tensor]) -> Any:
        def take(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if self._thread == get_ident():
                into.append(args[0])

        return take

    def _take_output(self, into: list[Tensor]) -> Any:
        def take(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self._thread == get_ident():
                into.append(output)

        return take

    def _forget(self) -> None:
        for each in (self._residuals, self._qkv, self._hidden):
            each.clear()


@contextmanager
def observe(model: nn.Module, *, residuals: bool = True, bottlenecks: bool = True) -> Iterator[Observer]:
    """Give an observer whose ``encode(pixels)`` returns the features of the encoder of ``model``.

    Only what is asked for is kept, beside the final embedding, and only until the next encoding or the end of
    the block. Nothing is left on the model afterwards. Blocks may recompute their activations in the backward
    pass (gradient checkpointing), if not the re-entrant way.

    Raises:
        DataError: no family knows the model.
    """
    observer = Observer(find_family(model).locate(model))
    with ExitStack() as stack:
        stack.callback(observer.close)
        for hook in observer.hang(residuals=residuals, bottlenecks=bottlenecks):
            stack.callback(hook.remove)
        yield observer
