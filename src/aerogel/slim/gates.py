"""Put a factor on every channel where it is read: at 1 nothing changes, at 0 the channel is masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.slim.channels import Axis, Group


@contextmanager
def hang_gates(
    model: nn.Module, groups: Sequence[Group], *, statistics: bool = True
) -> Iterator[dict[str, Tensor]]:
    """Let the model compute, within the block, with a gate on each channel; yields the gates [size] by group.

    Gates are leaves that require gradients, all 1, in float32 or the model's wider type, on its devices. They
    act where a channel is read and nowhere else, so that a gate's derivative is the sum, over the weights
    that read the channel, of weight times gradient:

    - mlp: the columns of ``mlp.lin2``;
    - head_dims: query d of every head, thus its rows of the projection with their bias and so its share of
      the logits and of the relative positions; and value d where ``attn.proj`` reads it, so these columns;
    - heads: the same for all dimensions of a head;
    - embedding: the input columns of ``attn.qkv`` and ``mlp.lin1`` in every block, those of ``neck.conv1``,
      and those of a decoder that takes the residual stream; and, with ``statistics``, its weight in the mean
      and the variance that each LayerNorm takes over the residual stream.

    Keys need no gate: without its query a dimension adds nothing to the logits. With all gates 0 or 1 the
    model is that of :func:`aerogel.slim.mask_channels`, with those of 0 dropped.
    """
    gates = {group.name: _make_gate(model, group) for group in groups}
    with ExitStack() as stack:
        for group in groups:
            for hook in _hang_hooks(model, group, gates[group.name], statistics):
                stack.callback(hook.remove)
        yield gates


def _make_gate(model: nn.Module, group: Group) -> Tensor:
    like = model.get_parameter(group.axes[0].parameter)
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.ones(group.size, dtype=dtype, device=like.device, requires_grad=True)


def _hang_hooks(model: nn.Module, group: Group, gate: Tensor, statistics: bool) -> Iterator[Any]:
    for axis in group.axes:
        owner, _, name = axis.parameter.rpartition(".")
        if name != "weight":
            continue
        module: Any = model.get_submodule(owner)
        if isinstance(module, nn.LayerNorm):
            if statistics:
                yield module.register_forward_hook(_NormGate(gate))
            continue
        channel_dim = -1 if isinstance(module, nn.Linear) else 1
        length = module.weight.shape[axis.dim]
        if axis.dim == (0 if isinstance(module, nn.ConvTranspose2d) else 1):
            yield module.register_forward_pre_hook(_InputGate(gate, group, axis, length, channel_dim))
        elif axis.role == "query":
            yield module.register_forward_hook(_OutputGate(gate, group, axis, length, channel_dim))


class _Factor:
    """Spreads a gate along an axis, 1 where the axis is not the group's, and multiplies by it."""

    def __init__(self, gate: Tensor, group: Group, axis: Axis, length: int, dim: int) -> None:
        self._gate, self._axis, self._dim = gate, axis, dim
        self._rest = length - axis.offset - axis.repeats * group.size * axis.block

    def multiply(self, states: Tensor) -> Tensor:
        axis, gate = self._axis, self._gate
        own = gate.repeat_interleave(axis.block).repeat(axis.repeats)
        factor = torch.cat((gate.new_ones(axis.offset), own, gate.new_ones(self._rest)))
        after = 0 if self._dim == -1 else states.ndim - 1 - self._dim
        return states * factor.to(states.device, states.dtype).reshape(-1, *(1,) * after)


class _InputGate(_Factor):
    """Multiplies what a layer reads."""

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.multiply(args[0]), *args[1:])


class _OutputGate(_Factor):
    """Multiplies what a layer gives."""

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.multiply(output)


class _NormGate:
    """Normalises with a mean and a variance in which each channel counts as much as its gate says."""

    def __init__(self, gate: Tensor) -> None:
        self._gate = gate

    def __call__(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        states = args[0].to(torch.promote_types(args[0].dtype, torch.float32))
        shares = (self._gate / self._gate.sum()).to(states.device, states.dtype)
        centred = states - (states * shares).sum(-1, keepdim=True)
        variance = (centred.square() * shares).sum(-1, keepdim=True)
        normal = centred * (variance + module.eps).rsqrt()
        found: Tensor = normal * module.weight + module.bias
        return found.to(output.dtype)
