"""Describe which channels of an encoder go together: plain data, every parameter and axis by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from aerogel.errors import MismatchError, compose

Kind = Literal["embedding", "heads", "head_dims", "mlp"]
Role = Literal["", "query", "key", "value"]

EMBEDDING: Kind = "embedding"
KINDS: tuple[Kind, ...] = ("embedding", "heads", "head_dims", "mlp")

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """Say where a group's channels lie along one axis of a parameter.

    Channel c of a group of C lies, for every repeat r and every i below ``block``, at ``offset`` +
    (r · C + c) · ``block`` + i. A width of the residual stream is one repeat of blocks of 1; a within-head
    index repeats for each head; a whole head is a block of its dimensions. ``role`` marks the rows that make
    queries, keys and values.
    """

    parameter: str
    dim: int
    offset: int = 0
    repeats: int = 1
    block: int = 1
    role: Role = ""


@dataclass(frozen=True)
class Group:
    """Name channels that can only be kept or dropped together, and every place where they are.

    ``name`` ends in the kind; before it stands the block, as in ``blocks.3.mlp``.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]

    @property
    def kind(self) -> Kind:
        """Return what the channels are."""
        return kind_of(self.name)

    def locate(self, axis: Axis, channels: Iterable[int]) -> _Ints:
        """Return the positions of ``channels`` along one of the group's axes, in ascending order."""
        chosen = np.fromiter(channels, dtype=np.int64)
        starts = (np.arange(axis.repeats)[:, None] * self.size + chosen) * axis.block
        return np.sort((axis.offset + starts[..., None] + np.arange(axis.block)).reshape(-1))


@dataclass(frozen=True)
class Channels:
    """Hold all groups of an encoder, and the axes that no group changes.

    ``family`` names who described it. Parameters of the encoder begin with ``encoder``; members may lie
    outside it, such as a decoder's view of the embedding. ``fixed`` are (parameter, axis) pairs.
    """

    family: str
    encoder: str
    groups: tuple[Group, ...]
    fixed: frozenset[tuple[str, int]]

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of channels of each group."""
        return {group.name: group.size for group in self.groups}

    @property
    def blocks(self) -> int:
        """Return the number of transformer blocks."""
        return sum(group.kind == "mlp" for group in self.groups)

    def of_kind(self, kind: Kind) -> tuple[Group, ...]:
        """Return the groups of one kind, in the order of the blocks."""
        return tuple(group for group in self.groups if group.kind == kind)


def name_group(kind: Kind, block: int | None = None) -> str:
    """Return the name of a group: ``embedding``, or ``blocks.<block>.<kind>``."""
    return kind if block is None else f"blocks.{block}.{kind}"


def kind_of(name: str) -> Kind:
    """Return the kind of the group called ``name``.

    Raises:
        MismatchError: the name ends in no known kind.
    """
    kind = name.rpartition(".")[2]
    for known in KINDS:
        if kind == known:
            return known
    raise MismatchError(
        compose(f"a group whose name ends in one of {', '.join(KINDS)}", repr(name), "correct the name")
    )


def check_channels(channels: Channels, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a description fits parameters of these ``shapes`` and leaves no axis of the encoder out.

    Each axis of each parameter of the encoder is either fixed, or covered by groups throughout: every
    position belongs to one group, or to one of heads and one of head dimensions.

    Raises:
        MismatchError: something does not fit; all faults are listed.
    """
    faults = [*_find_strangers(channels, shapes), *_find_gaps(channels, shapes)]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise MismatchError(
            compose(
                f"an encoder as the family {channels.family!r} knows it",
                shown,
                "pass the model without adapters or other added parts, or describe it as a family of its own",
            )
        )


def _find_strangers(channels: Channels, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    faults = []
    for group in channels.groups:
        for axis in group.axes:
            shape = shapes.get(axis.parameter)
            end = axis.offset + axis.repeats * group.size * axis.block
            if shape is None or axis.dim >= len(shape):
                faults.append(f"{axis.parameter} has no axis {axis.dim}")
            elif end > shape[axis.dim]:
                faults.append(
                    f"{group.name} ends at {end} of axis {axis.dim} of {axis.parameter} {tuple(shape)}"
                )
    faults += [
        f"{parameter} has no axis {dim}"
        for parameter, dim in sorted(channels.fixed)
        if dim >= len(shapes.get(parameter, ()))
    ]
    return faults


def _find_gaps(channels: Channels, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    covered: dict[tuple[str, int], dict[bool, _Ints]] = {}
    for group in channels.groups:
        for axis in group.axes:
            length = shapes.get(axis.parameter, ())[axis.dim : axis.dim + 1]
            if not length:
                continue
            # Heads and the rest are counted apart: the two of attention cross each other.
            layers = covered.setdefault((axis.parameter, axis.dim), {})
            counts = layers.setdefault(group.kind == "heads", np.zeros(length[0], dtype=np.int64))
            found = group.locate(axis, range(group.size))
            counts[found[found < length[0]]] += 1
    faults = [
        f"axis {dim} of {name} is fixed and in a group" for name, dim in channels.fixed & covered.keys()
    ]
    for (name, dim), layers in covered.items():
        if any((counts != 1).any() for counts in layers.values()) or False not in layers:
            faults.append(f"groups do not cover axis {dim} of {name} exactly once")
    for name, shape in shapes.items():
        if name.startswith(channels.encoder):
            faults += [
                f"axis {dim} of {name} is in no group"
                for dim in range(len(shape))
                if (name, dim) not in covered and (name, dim) not in channels.fixed
            ]
    return faults
