"""Cut channels out of a model, or pad it with zeros: exactly, with the temperature of attention kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from aerogel.errors import MismatchError, compose
from aerogel.slim.channels import Channels
from aerogel.slim.families import describe, find_family
from aerogel.slim.plan import Layout, Plan, find_stock_faults

Model = TypeVar("Model", bound=nn.Module)
# Parameter -> axis -> (length of the axis in the wider model, positions in it of the narrower one).
_Places = dict[str, dict[int, tuple[int, npt.NDArray[np.int64]]]]


def apply_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` with the channels that ``plan`` keeps; the model itself is not changed.

    See :func:`apply_plan_`, which this is apart from the copy. The copy takes memory for what it keeps only.
    With the layout "flex" it is of our class for the family, which saves and loads like the stock one.

    Raises:
        DataError: no family knows the model.
        MismatchError: the plan is for another model, or the model cannot be cut.
    """
    _require(model, plan)
    return _copy_with(model, _slice(model, plan), plan.widths, plan.layout)


def apply_plan_(model: Model, plan: Plan) -> Model:
    """Cut ``model`` in place to the channels that ``plan`` keeps; returns it.

    Every member of a group is sliced, relative positions too. Keys, weight and bias, are multiplied by
    sqrt(d_new / d_old) where heads lose dimensions, because attention divides by sqrt(d): so the logits of
    what stays are as before, q k / sqrt(d_old). Queries stay, because relative positions use them unscaled.
    The result equals the whole model with the other channels masked. Parameters keep their identity, dtype,
    device and ``requires_grad``; gradients of those that were cut are dropped. The model's class becomes that
    of the plan's layout, its config a new one.

    Raises:
        DataError: no family knows the model.
        MismatchError: the plan is for another model, or the model cannot be cut.
    """
    _require(model, plan)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in _slice(model, plan).items():
        parameters[name].grad = None
        parameters[name].data = tensor
    _settle_(model, plan.widths, plan.layout)
    return model


def cut_outputs(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Return the parameters whose rows ``plan`` cuts, by name, with their columns as they are.

    A linear layer of them takes all that it took and gives what stays of it; keys are multiplied as in
    :func:`apply_plan_`. Parameters that would not change are left out.

    Raises:
        DataError: no family knows the model.
        MismatchError: the plan is for another model.
    """
    channels = describe(model)
    plan.require_fit(channels)
    places = _find_places(channels, plan.kept)
    rows = {name: {0: found[0]} for name, found in places.items() if 0 in found}
    return _exchange(model, channels, rows, plan.widths, _cut)


def to_stock(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` that transformers' own classes can load, padded with zeros where it must be.

    Blocks get the widths of the widest, heads so many dimensions that together they are as wide as the
    embedding; the function stays the same. Keys are multiplied by sqrt(d_new / d_old) as in
    :func:`apply_plan_`. The embedding cannot be padded: LayerNorm would see the zeros.

    Raises:
        DataError: no family knows the model.
        MismatchError: the heads of some block are wider together than the embedding.
    """
    channels = describe(model)
    widths = _widen(channels)
    target = find_family(model).describe(model, widths)
    first = {name: tuple(range(size)) for name, size in channels.sizes.items()}
    places = _find_places(target, first)
    tensors = _exchange(model, channels, places, widths, _pad)
    return _copy_with(model, tensors, widths, "stock")


def _require(model: nn.Module, plan: Plan) -> None:
    plan.require_fit(describe(model))
    find_family(model).require_layout(model, plan.layout)


def _slice(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    channels = find_family(model).describe(model)
    return _exchange(model, channels, _find_places(channels, plan.kept), plan.widths, _cut)


def _find_places(channels: Channels, kept: Mapping[str, tuple[int, ...]]) -> _Places:
    """Return where the kept channels lie: a position stays if every group that it belongs to keeps it."""
    lengths: dict[tuple[str, int], int] = {}
    dropped: dict[tuple[str, int], list[npt.NDArray[np.int64]]] = {}
    for group in channels.groups:
        rest = sorted(set(range(group.size)).difference(kept[group.name]))
        for axis in group.axes:
            key, end = (axis.parameter, axis.dim), axis.offset + axis.repeats * group.size * axis.block
            lengths[key] = max(end, lengths.get(key, 0))
            dropped.setdefault(key, []).append(group.locate(axis, rest))
    places: _Places = {}
    for (name, dim), length in lengths.items():
        stays = np.ones(length, dtype=np.bool_)
        for found in dropped[name, dim]:
            stays[found] = False
        places.setdefault(name, {})[dim] = (length, np.flatnonzero(stays))
    return places


def _cut(tensor: Tensor, dim: int, length: int, positions: Tensor) -> Tensor:
    return tensor if len(positions) == length else tensor.index_select(dim, positions)


def _pad(tensor: Tensor, dim: int, length: int, positions: Tensor) -> Tensor:
    if len(positions) == length:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = length
    return tensor.new_zeros(shape).index_copy_(dim, positions, tensor)


def _exchange(
    model: nn.Module, channels: Channels, places: _Places, widths: Mapping[str, int], change: Any
) -> dict[str, Tensor]:
    """Return the new tensors of all parameters that change, by name; one that is shared, under each name."""
    keys = _find_keys(channels, widths)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tensor = original = parameter.detach()
        for start, end, factor in keys.get(name, ()):
            tensor = tensor.clone()
            tensor[start:end] *= factor
        for dim, (length, positions) in places.get(name, {}).items():
            index = torch.from_numpy(positions).to(tensor.device)
            tensor = change(tensor, dim, length, index)
        if tensor is not original:
            found[name] = tensor
    _require_agreement(model, found)
    return found


def _find_keys(channels: Channels, widths: Mapping[str, int]) -> dict[str, list[tuple[int, int, float]]]:
    """Return the rows of keys, and by what they are multiplied: parameter -> (first, end, factor)."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    for group in channels.of_kind("head_dims"):
        factor = math.sqrt(widths[group.name] / group.size)
        for axis in group.axes:
            if axis.role == "key" and factor != 1.0:
                end = axis.offset + axis.repeats * group.size * axis.block
                found.setdefault(axis.parameter, []).append((axis.offset, end, factor))
    return found


def _require_agreement(model: nn.Module, changed: Mapping[str, Tensor]) -> None:
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for names in places.values():
        first = changed.get(names[0])
        for name in names[1:]:
            other = changed.get(name)
            same = first is other or (first is not None and other is not None and _is_same(first, other))
            if not same:
                raise MismatchError(
                    compose(
                        "parameters that are shared only where the same channels stay",
                        f"one parameter as {names[0]} and as {name}, which would change differently",
                        "give each place a parameter of its own, or keep the same channels in both",
                    )
                )


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.device.type == "meta" or torch.equal(one, other))


def _copy_with(
    model: nn.Module, tensors: Mapping[str, Tensor], widths: Mapping[str, int], layout: Layout
) -> nn.Module:
    """Return a copy of the model in which ``tensors`` stand for the parameters of these names."""
    memo: dict[int, Any] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        old = parameters[name]
        memo.setdefault(id(old), nn.Parameter(tensor, requires_grad=old.requires_grad))
    copied = copy.deepcopy(model, memo)
    _settle_(copied, widths, layout)
    return copied


def _settle_(model: nn.Module, widths: Mapping[str, int], layout: Layout) -> None:
    for module in model.modules():
        _read_shape_(module)
    find_family(model).settle_(model, widths, layout)


def _read_shape_(module: nn.Module) -> None:
    """Let a module say of itself what the shape of its weight says."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.ConvTranspose2d):
        module.in_channels = module.weight.shape[0]
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1]


def _widen(channels: Channels) -> dict[str, int]:
    """Return the least widths that hold the model's and are stock."""
    widths = channels.sizes
    if not find_stock_faults(widths):
        return widths
    embedding = widths["embedding"]
    heads, dims, mlp = (
        max(group.size for group in channels.of_kind(kind)) for kind in ("heads", "head_dims", "mlp")
    )
    fitting = [count for count in range(heads, embedding // dims + 1) if embedding % count == 0]
    if not fitting:
        raise MismatchError(
            compose(
                f"blocks whose widest heads, {heads} of {dims} dimensions, fit an embedding of {embedding}, "
                "which a stock config ties to their sum",
                f"{heads * dims} together",
                "make the plan with head_dim_limit, or keep the flex layout",
            )
        )
    wide = {"embedding": embedding, "heads": fitting[0], "head_dims": embedding // fitting[0], "mlp": mlp}
    return {group.name: wide[group.kind] for group in channels.groups}
