"""Second moments of what the layers of an encoder are given, over the tokens of some images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.errors import DataError, compose
from aerogel.slim.families.sites import BlockSites, Sites


@dataclass(frozen=True)
class HeadMoments:
    """Hold the second moments [heads, dims, dims] of what the heads of one block make and mix.

    ``keys`` are those of keys without their mean over what a query sees, which softmax does not feel.
    """

    queries: Tensor
    keys: Tensor
    mixed: Tensor


def to_exact(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 where it is, or on the CPU if its device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


class MomentSums:
    """Adds up the mean of x xᵀ over tokens, image by image, in float64."""

    def __init__(self, kind: torch.dtype) -> None:
        self.kind = kind
        self.found: dict[Any, Tensor] = {}

    def add(self, name: Any, states: Tensor) -> None:
        """Take the states [..., tokens, dims] of one image."""
        flat = states.to(self.kind)
        moment = to_exact(flat.transpose(-2, -1) @ flat) / flat.shape[-2]
        self.found[name] = self.found[name] + moment if name in self.found else moment


def list_norms(blocks: Iterable[BlockSites]) -> list[tuple[Any, Any]]:
    """Return the norms of all blocks with the layer that reads each, in order."""
    layers: list[Any] = [block.layer for block in blocks]
    return [
        pair
        for layer in layers
        for pair in ((layer.layer_norm1, layer.attn.qkv), (layer.layer_norm2, layer.mlp.lin1))
    ]


def watch_stream(sites: Sites, images: Iterable[Tensor], *, half: bool = False) -> Tensor:
    """Return the second moments [readers, C, C] of the residual stream where each norm or the neck reads it.

    The stream is taken normalised token by token, also for the neck, which normalises after its convolution.
    Moments are where the model is, if that has float64.

    Raises:
        DataError: there is no image.
    """
    encoder: Any = sites.encoder
    sums = MomentSums(encoder.neck.conv1.weight.dtype)

    def watch(number: int, last: bool = False) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def see(module: Any, given: tuple[Tensor, ...]) -> None:
            states = given[0].permute(0, 2, 3, 1) if last else given[0]
            sums.add(number, _normalise(states.to(sums.kind)).flatten(0, -2))

        return see

    norms = [norm for norm, _ in list_norms(sites.blocks)]
    hooks = [(norm, watch(number)) for number, norm in enumerate(norms)]
    hooks.append((encoder.neck.conv1, watch(len(norms), last=True)))
    count = encode_all(
        encoder, images, half, [module.register_forward_pre_hook(see) for module, see in hooks]
    )
    return torch.stack([sums.found[number] for number in range(len(hooks))]) / count


def watch_heads(sites: Sites, images: Iterable[Tensor], *, half: bool = False) -> list[HeadMoments]:
    """Return the moments of each block's heads, on the CPU.

    Raises:
        DataError: there is no image.
    """
    encoder: Any = sites.encoder
    sums = MomentSums(encoder.neck.conv1.weight.dtype)
    hooks = []
    for number, block in enumerate(sites.blocks):
        attention: Any = block.layer.attn
        see, mix = _watch_attention(sums, number, block.heads)
        hooks += [
            attention.qkv.register_forward_hook(see),
            attention.proj.register_forward_pre_hook(mix),
        ]
    count = encode_all(encoder, images, half, hooks)
    return [
        HeadMoments(*(sums.found[number, part].cpu() / count for part in ("queries", "keys", "mixed")))
        for number in range(len(sites.blocks))
    ]


def _watch_attention(sums: MomentSums, number: int, heads: int) -> tuple[Any, Any]:
    def see(module: nn.Module, given: Any, made: Tensor) -> None:
        queries, keys, _ = made.flatten(1, -2).unflatten(-1, (3, heads, -1)).unbind(2)
        sums.add((number, "queries"), _by_head(queries))
        sums.add((number, "keys"), _by_head(keys - keys.mean(1, keepdim=True)))

    def mix(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        sums.add((number, "mixed"), _by_head(given[0].flatten(1, -2).unflatten(-1, (heads, -1))))

    return see, mix


def _by_head(states: Tensor) -> Tensor:
    """Return [heads, tokens, dims] from [windows, tokens, heads, dims]."""
    return states.flatten(0, 1).transpose(0, 1)


def _normalise(states: Tensor) -> Tensor:
    states = states - states.mean(-1, keepdim=True)
    return states / states.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()


def encode_all(encoder: nn.Module, images: Iterable[Tensor], half: bool, hooks: Iterable[Any]) -> int:
    """Encode the images one by one and take the hooks away; return how many images there were.

    Raises:
        DataError: there is no image.
    """
    count = 0
    try:
        for pixels in images:
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
                encoder(pixels)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise DataError(compose("at least one image", "none", "pass photos to look at"))
    return count
