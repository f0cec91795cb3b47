"""Where in an encoder the features are that a student is aligned by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class BlockSites:
    """Name the modules of one block whose inputs or outputs are features.

    ``layer`` takes and gives the residual stream; ``norm`` takes it after attention. ``qkv`` gives queries,
    keys and values, ``narrow`` takes the hidden channels of the MLP. ``window`` is the side of the windows
    that ``qkv`` sees, in tokens, 0 where it sees the whole image.
    """

    layer: nn.Module
    norm: nn.Module
    qkv: nn.Module
    narrow: nn.Module
    heads: int
    window: int

    def mix(self, states: Tensor) -> Tensor:
        """Return what attention mixes from the residual stream [B, g, g, C], before its last projection.

        [B, g, g, heads · dims], where attention sees windows with these put together again.
        """
        layer: Any = self.layer
        seen: list[Tensor] = []
        hook = layer.attn.proj.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            given = layer.layer_norm1(states)
            if self.window:
                given, padded = layer.window_partition(given, self.window)
            layer.attn(given)
        finally:
            hook.remove()
        if not self.window:
            return seen[0]
        sides = (states.shape[1], states.shape[2])
        whole: Tensor = layer.window_unpartition(seen[0], self.window, padded, sides)
        return whole


@dataclass(frozen=True)
class Sites:
    """Hold the encoder, its blocks in order, and the pixels that a token stands for.

    ``decoder`` is SAM-HQ's mask decoder, which reads the residual stream too, where the model has one.
    """

    encoder: nn.Module
    blocks: tuple[BlockSites, ...]
    patch_px: int
    decoder: Any = None

    def read_details(self, intermediate: Sequence[Tensor]) -> Tensor | None:
        """Return what the decoder makes of the first global block's output: [B, c, 4 g, 4 g].

        ``intermediate`` are the outputs [B, g, g, C] of the global blocks. None where no decoder reads them.
        """
        if self.decoder is None or not intermediate:
            return None
        decoder = self.decoder
        coarse = decoder.compress_vit_conv1(intermediate[0].permute(0, 3, 1, 2).contiguous())
        found: Tensor = decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(coarse)))
        return found

    def shape_outputs(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what one image gives: "embedding" [C, g, g] and perhaps "details"."""
        encoder: Any = self.encoder
        grid = int(encoder.config.image_size) // self.patch_px
        shapes: dict[str, tuple[int, ...]] = {"embedding": (encoder.neck.conv2.out_channels, grid, grid)}
        if self.decoder is not None and any(not block.window for block in self.blocks):
            shapes["details"] = (self.decoder.compress_vit_conv2.out_channels, 4 * grid, 4 * grid)
        return shapes

    @contextmanager
    def recomputing(self, enabled: bool = True) -> Iterator[None]:
        """Let blocks forget their activations in the block and compute them again in the backward pass.

        The modules' modes stay what they are, but for the blocks' own flag, which transformers asks for.
        """
        layers: list[Any] = [block.layer for block in self.blocks] if enabled else []
        names = ("gradient_checkpointing", "_gradient_checkpointing_func", "training")
        before = [{name: vars(layer)[name] for name in names if name in vars(layer)} for layer in layers]
        try:
            for layer in layers:
                layer.gradient_checkpointing = True
                # Re-entrant ones would run the block without a graph, so that its inner features had none.
                layer._gradient_checkpointing_func = partial(
                    checkpoint, use_reentrant=False, preserve_rng_state=False
                )
                layer.training = True
            yield
        finally:
            for layer, kept in zip(layers, before, strict=True):
                for name in names:
                    vars(layer).pop(name, None)
                vars(layer).update(kept)


def find_sites(model: Any, encoder: Any) -> Sites:
    """Return the sites of a SAM's or SAM-HQ's ``encoder``, the ``model`` itself or a part of it."""
    blocks = tuple(
        BlockSites(
            layer,
            layer.layer_norm2,
            layer.attn.qkv,
            layer.mlp.lin2,
            int(layer.attn.num_attention_heads),
            int(layer.window_size),
        )
        for layer in encoder.layers
    )
    decoder = getattr(model, "mask_decoder", None)
    reads = hasattr(decoder, "compress_vit_conv1")
    return Sites(encoder, blocks, int(encoder.config.patch_size), decoder if reads else None)
