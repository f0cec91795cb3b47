"""Trade time for memory: blocks are computed again on the way back instead of being remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from aerogel.slim.channels import Channels


@contextmanager
def recompute_blocks(model: nn.Module, channels: Channels) -> Iterator[None]:
    """Let each transformer block forget, within the block of code, all but its input until gradients need it.

    Outputs and gradients stay the same, also when a graph is walked several times. Works in evaluation mode,
    where the blocks draw nothing at random; whether the model's own checkpointing is on does not matter.
    (Chen et al., arXiv 1604.06174.)
    """
    changed: list[tuple[dict[str, Any], Any]] = []
    try:
        for block in find_blocks(model, channels):
            own = vars(block)
            changed.append((own, own.get("forward")))
            own["forward"] = _forget(block.forward)
        yield
    finally:
        for own, before in reversed(changed):
            if before is None:
                own.pop("forward", None)
            else:
                own["forward"] = before


def find_blocks(model: nn.Module, channels: Channels) -> list[nn.Module]:
    """Return the transformer blocks, in order: for each the smallest module with all its own groups."""
    places: dict[str, list[list[str]]] = {}
    for group in channels.groups:
        block = group.name.rpartition(".")[0]
        if block:
            places.setdefault(block, []).extend(axis.parameter.split(".")[:-1] for axis in group.axes)
    return [model.get_submodule(".".join(_common(paths))) for paths in places.values()]


def _common(paths: list[list[str]]) -> list[str]:
    first, last = min(paths), max(paths)
    length = min(len(first), len(last))
    return first[: next((at for at in range(length) if first[at] != last[at]), length)]


def _forget(forward: Callable[..., Any]) -> Callable[..., Any]:
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
