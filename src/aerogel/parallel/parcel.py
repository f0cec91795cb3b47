"""Hand the arguments of a call to other processes: what has not changed since the call before stays home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from aerogel.parallel.trace import TensorSpec

_ALIGNMENT = 64  # that of torch's own memory: kernels may round differently elsewhere


@dataclass(frozen=True)
class _Kept:
    """Stand for the tensor that was at the same place before."""


@dataclass(frozen=True)
class _Sent:
    """Stand for a tensor in the buffer that comes along."""

    spec: TensorSpec
    start: int


@dataclass(frozen=True)
class _Again:
    """Stand for the tensor at an earlier place of the same parcel."""

    place: int


@dataclass(frozen=True)
class Parcel:
    """Hold nested values, with a stand-in for each tensor in the buffer that comes along."""

    values: Any
    size_bytes: int


class Packer:
    """Pack nested values call by call; a tensor that is still the same object, unchanged, is not sent again.

    Tensors travel in one flat buffer on ``where``; those on the CPU beside another device within the parcel.
    """

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._before: dict[int, tuple[Tensor, int]] = {}

    def pack(self, values: Any) -> tuple[Parcel, Tensor]:
        """Return the parcel and its buffer (uint8)."""
        leaves, structure = tree_flatten(values)
        packed: list[Any] = []
        parts: list[Tensor] = []
        places: dict[int, int] = {}
        start = 0
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                packed.append(leaf)
            else:
                kept = self._is_kept(place, leaf)
                first = places.setdefault(id(leaf), place)
                if first != place:
                    packed.append(_Again(first))
                elif kept:
                    packed.append(_Kept())
                elif leaf.device.type == "cpu" and self._where.type != "cpu":
                    packed.append(leaf.detach().clone())
                else:
                    spec = TensorSpec.of(leaf)
                    packed.append(_Sent(spec, start))
                    parts.append(_flatten(spec, leaf, self._where))
                    start += parts[-1].numel()
        buffer = torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8, device=self._where)
        return Parcel(tree_unflatten(packed, structure), start), buffer

    def _is_kept(self, place: int, tensor: Tensor) -> bool:
        # Tensors made in inference mode keep no count of their changes.
        version = -1 if tensor.is_inference() else tensor._version
        before = self._before.get(place)
        self._before[place] = (tensor, version)
        return before is not None and before[0] is tensor and before[1] == version >= 0


class Unpacker:
    """Open the parcels of one :class:`Packer`, all of them, in their order."""

    def __init__(self) -> None:
        self._before: dict[int, Tensor] = {}

    def unpack(self, parcel: Parcel, buffer: Tensor) -> Any:
        """Return the values."""
        found: list[Any] = []
        leaves, structure = tree_flatten(parcel.values)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, _Kept):
                value: Any = self._before[place]
            elif isinstance(leaf, _Again):
                value = found[leaf.place]
            elif isinstance(leaf, _Sent):
                value = _unflatten(leaf, buffer)
            else:
                value = leaf
            if isinstance(value, Tensor):
                self._before[place] = value
            found.append(value)
        return tree_unflatten(found, structure)


def _flatten(spec: TensorSpec, tensor: Tensor, where: torch.device) -> Tensor:
    """Return the bytes of ``tensor`` in its own layout, padded to the alignment, on ``where``."""
    count = tensor.numel()
    padded = -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    flat = torch.zeros(padded // tensor.itemsize, dtype=tensor.dtype, device=where)
    spec.view(flat[:count]).copy_(tensor.detach())
    return flat.view(torch.uint8)


def _unflatten(sent: _Sent, buffer: Tensor) -> Tensor:
    size = sent.spec.size_bytes
    return sent.spec.view(buffer[sent.start : sent.start + size].view(sent.spec.dtype))
