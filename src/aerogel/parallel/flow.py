"""Choose the units that devices may own, and the data flow among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aerogel.errors import ConfigError, compose
from aerogel.parallel.trace import Call, Source, TensorSpec

_COVERED = 0.995
_LIGHT = 0.005


@dataclass(frozen=True)
class Unit:
    """Describe a part: the sub-module's name, its multiply-accumulates, the tensors it gives.

    ``shape`` is what it returns, with slots for the tensors.
    """

    name: str
    macs: int
    outputs: tuple[TensorSpec, ...]
    shape: Any


@dataclass(frozen=True)
class Flow:
    """Hold the data flow of one forward pass: units in order of execution and who reads what.

    ``reads[u]`` are the (unit name, output number) pairs that unit u depends on, directly or through glue;
    ``result`` those that the denoiser's own output is made of. ``macs`` counts the whole pass. ``decisive``
    are the numbers of the arguments whose values the units depend on: see :class:`Call`.
    """

    units: tuple[Unit, ...]
    reads: tuple[frozenset[Source], ...]
    result: frozenset[Source]
    macs: int
    decisive: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the units' names."""
        return tuple(unit.name for unit in self.units)

    def sizes(self) -> dict[Source, int]:
        """Return the bytes of every output of every unit."""
        return {
            (unit.name, number): spec.size_bytes
            for unit in self.units
            for number, spec in enumerate(unit.outputs)
        }


def choose_units(root: Call, grain: float) -> tuple[Call, ...]:
    """Choose the calls to distribute, in the order they are made; none lies inside another.

    A call with more than ``grain`` (a share of all multiply-accumulates) is replaced by the calls that it
    makes, if these account for what it computes and may move; so is any that may not move itself. What is
    left over is glue, which every device runs.
    """
    return tuple(each for part in root.inside for each in _open(part, grain * root.macs))


def _open(call: Call, heavy: float) -> tuple[Call, ...]:
    if call.movable and not (call.macs > heavy and divides(call)):
        return (call,)
    if not call.macs:
        return ()
    return tuple(each for part in call.inside for each in _open(part, heavy))


def divides(call: Call) -> bool:
    """Tell whether the calls that ``call`` makes may stand for it."""
    parts = [each for each in call.inside if each.movable]
    if len(parts) == 1 and not divides(parts[0]):
        return False
    return bool(parts) and sum(each.macs for each in parts) >= _COVERED * call.macs


def connect(root: Call, units: Sequence[Call]) -> Flow:
    """Return the data flow among ``units``, calls in the order they are made.

    Light ones that depend on no other (time embedding, first convolution) become glue: every device runs
    them, on the newest input.

    Raises:
        ConfigError: one unit lies inside another.
    """
    calls = {each.name: each for each in root.walk()}
    names = {each.name for each in units}
    for unit in units:
        inner = {each.name for each in unit.walk()[1:] if each.name in names}
        if inner:
            raise ConfigError(
                compose(
                    "units that lie beside each other",
                    f"{min(inner)!r} inside {unit.name!r}",
                    "name only one of the two",
                )
            )
    kept: dict[str, Call] = {}
    resolved: dict[Source, frozenset[Source]] = {}

    def resolve(sources: frozenset[Source]) -> frozenset[Source]:
        return frozenset().union(*(follow(source) for source in sources))

    def follow(source: Source) -> frozenset[Source]:
        if source[0] in kept:
            return frozenset((source,))
        if source not in resolved:
            resolved[source] = resolve(calls[source[0]].made_of[source[1]])
        return resolved[source]

    reads = []
    light = _LIGHT * root.macs
    for unit in units:
        sources = resolve(unit.reads)
        if sources or unit.macs > light:
            kept[unit.name] = unit
            reads.append(sources)
        else:
            # All the light ones together: a long row of them is no glue.
            light -= unit.macs
    return Flow(
        units=tuple(Unit(each.name, each.macs, each.outputs, each.shape) for each in kept.values()),
        reads=tuple(reads),
        result=resolve(frozenset().union(*root.made_of)),
        macs=root.macs,
        decisive=root.decisive,
    )
