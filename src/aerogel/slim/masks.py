"""Run a whole model as if channels were gone: the reference that cutting them out is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.slim.channels import Axis, Channels, Group
from aerogel.slim.families import describe
from aerogel.slim.plan import Plan


@contextmanager
def mask_channels(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Let the model compute, within the block, as if only the channels of ``plan`` existed.

    Nobody reads a dropped channel: LayerNorm takes its statistics over the kept ones, layers that read get
    zeros in the others' places, and queries, keys and values of dropped dimensions are zero. Weights, widths
    and the temperature of attention stay. With everything kept nothing changes.

    Raises:
        MismatchError: the plan is for another model.
        DataError: no family knows the model.
    """
    channels = describe(model)
    plan.require_fit(channels)
    with ExitStack() as stack:
        for hook in _hang_hooks(model, channels, plan):
            stack.callback(hook.remove)
        yield model


def _hang_hooks(model: nn.Module, channels: Channels, plan: Plan) -> Iterator[Any]:
    for group in channels.groups:
        kept = plan.kept[group.name]
        if len(kept) == group.size:
            continue
        for axis in group.axes:
            owner, _, name = axis.parameter.rpartition(".")
            if name == "weight":
                yield from _hang_hook(model.get_submodule(owner), group, axis, kept)


def _hang_hook(module: nn.Module, group: Group, axis: Axis, kept: tuple[int, ...]) -> Iterator[Any]:
    weight: Any = module.weight
    if isinstance(module, nn.LayerNorm):
        index = torch.from_numpy(group.locate(axis, kept)).to(weight.device)
        yield module.register_forward_hook(_NormHook(index))
        return
    rest = set(range(group.size)).difference(kept)
    gone = torch.from_numpy(group.locate(axis, rest)).to(weight.device)
    channel_dim = -1 if isinstance(module, nn.Linear) else 1
    if axis.dim == (0 if isinstance(module, nn.ConvTranspose2d) else 1):
        yield module.register_forward_pre_hook(_InputHook(gone, channel_dim))
    elif axis.role:
        yield module.register_forward_hook(_OutputHook(gone, channel_dim))


class _NormHook:
    """Normalises over the kept channels alone; the others become zero."""

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept

    def __call__(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = self._kept
        normal = functional.layer_norm(
            args[0][..., kept], (len(kept),), module.weight[kept], module.bias[kept], module.eps
        )
        return torch.zeros_like(output).index_copy(-1, kept, normal)


class _InputHook:
    """Puts zeros into channels of what a layer reads."""

    def __init__(self, gone: Tensor, dim: int) -> None:
        self._gone, self._dim = gone, dim

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].index_fill(self._dim, self._gone, 0.0), *args[1:])


class _OutputHook:
    """Puts zeros into channels of what a layer gives."""

    def __init__(self, gone: Tensor, dim: int) -> None:
        self._gone, self._dim = gone, dim

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.index_fill(self._dim, self._gone, 0.0)
