"""Say what every device runs, reads and sends."""

from __future__ import annotations

from dataclasses import dataclass

from aerogel.parallel.layout import Layout
from aerogel.parallel.partition import needed_sources
from aerogel.parallel.trace import Source, TensorSpec


@dataclass(frozen=True)
class Message:
    """Describe one tensor that travels in every round.

    ``segment`` counts the stretches of units that one device runs before it is another's turn in a pass.
    """

    source: Source
    spec: TensorSpec
    sender: int
    receiver: int
    segment: int = 0


@dataclass(frozen=True)
class Seating:
    """Hold what every device owns and reads under a layout.

    Devices 0 to ``components`` - 1 run a component each. Further ones, ``stride`` - 1 of them, run copies of
    the last component, at other times, and share nothing with anybody but the result.
    """

    owned: tuple[frozenset[str], ...]
    read: tuple[frozenset[Source], ...]
    tail: int
    components: int

    @property
    def devices(self) -> int:
        """Return how many devices there are."""
        return len(self.owned)

    @property
    def shared(self) -> frozenset[Source]:
        """Return the outputs that any device reads of another."""
        return frozenset().union(*self.read)


def seat_devices(layout: Layout, stride: int) -> Seating:
    """Return which device owns and reads what, for rounds of ``stride`` steps."""
    flow, owners = layout.flow, layout.partition.owners
    needed = needed_sources(flow, owners)
    components, tail = layout.partition.components, layout.partition.tail
    seats = [*range(components), *([tail] * (stride - 1))]
    owned = tuple(
        frozenset(name for name, owner in zip(flow.names, owners, strict=True) if owner == seat)
        for seat in seats
    )
    return Seating(owned, tuple(needed[seat] for seat in seats), tail, components)


def plan_messages(layout: Layout, seating: Seating) -> tuple[Message, ...]:
    """Return all that travels in every round, in the order in which it is made."""
    found = []
    segment, before = 0, layout.partition.owners[0]
    for unit, owner in zip(layout.flow.units, layout.partition.owners, strict=True):
        segment, before = segment + (owner != before), owner
        for number, spec in enumerate(unit.outputs):
            source = (unit.name, number)
            readers = [device for device, read in enumerate(seating.read) if source in read]
            found += [Message(source, spec, owner, reader, segment) for reader in readers]
    return tuple(found)
