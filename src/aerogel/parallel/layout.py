"""Find the units at the depth that balances, joined where nothing is gained by keeping them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from aerogel.errors import ConfigError, compose
from aerogel.parallel.flow import Flow, choose_units, connect, divides
from aerogel.parallel.partition import Partition, count_traffic, divide, fold_later, weigh
from aerogel.parallel.trace import Call

_TOLERANCE = 0.03
_GRAINS = (0.1, 0.05, 0.025, 0.0125)


@dataclass(frozen=True)
class Layout:
    """Hold the units of one denoiser at one input shape, and who owns them."""

    flow: Flow
    partition: Partition


def lay_out(
    root: Call,
    components: int,
    *,
    fold: bool | None = None,
    speeds: Sequence[float] | None = None,
    times: Mapping[str, float] | None = None,
    tolerance: float = _TOLERANCE,
) -> Layout:
    """Divide the denoiser whose forward pass was traced as ``root`` into ``components``.

    ``times`` are measured seconds of its sub-modules by name; multiply-accumulates stand in for what is
    missing. Units are blocks, or their parts where that balances better: of all depths that come within
    1 + ``tolerance`` of a perfect balance the one with the least traffic is taken, else the best balanced.
    Parts of a block that have one owner are joined in the end, so that what passes between them stays inside.
    ``fold`` True asks for the first and the last units on one device, False for each component in one piece;
    with None the last units may go to any component.

    Raises:
        ConfigError: more components than the denoiser has parts, or speeds that do not fit.
    """
    search = _Search(root, components, fold, speeds, _Costs(root, times or {}), tolerance)
    grains = sorted({0.5 / max(1, components), *_GRAINS}, reverse=True)
    chosen = [choose_units(root, grain) for grain in grains]
    distinct = {tuple(call.name for call in each): each for each in chosen}.values()
    found = [layout for each in distinct for layout in search.refine(each)] if components > 0 else []
    if not found:
        parts = len(connect(root, choose_units(root, 0.0)).units)
        raise ConfigError(
            compose(f"1 to {parts} components, the parts of this denoiser", f"{components}", "use fewer")
        )
    return min(found, key=search.rank)


class _Costs:
    """Give each call's cost: its measured time, or its multiply-accumulates at the measured rate."""

    def __init__(self, root: Call, times: Mapping[str, float]) -> None:
        self._macs = {call.name: call.macs for call in root.walk()}
        self._times = times
        known = [name for name in times if self._macs.get(name)]
        spent, done = sum(times[name] for name in known), sum(self._macs[name] for name in known)
        self._rate = spent / done if done else 1.0

    def of(self, flow: Flow) -> list[float]:
        """Return the cost of each unit."""
        return [self._times.get(name, self._rate * self._macs[name]) for name in flow.names]


@dataclass(frozen=True)
class _Search:
    root: Call
    components: int
    fold: bool | None
    speeds: Sequence[float] | None
    costs: _Costs
    tolerance: float

    def refine(self, chosen: tuple[Call, ...]) -> list[Layout]:
        """Return layouts of the ``chosen`` units, and of finer and finer ones beside the cuts."""
        found: list[Layout] = []
        led: Layout | None = None
        while True:
            flow = connect(self.root, chosen)
            names = set(flow.names)
            if len(names) >= self.components:
                costs = self.costs.of(flow)
                partition = divide(
                    flow,
                    costs,
                    self.components,
                    fold=self.fold,
                    speeds=self.speeds,
                    slack=self.tolerance,
                )
                led = self.shift_cuts(flow, costs, partition)
                found += [led, *self.fold_later(flow, costs)]
                names = _beside_cuts(flow, partition)
            finer = _refine(chosen, names)
            if finer == chosen:
                finer = _refine(chosen, {call.name for call in chosen})
            if finer == chosen or (led and led.partition.balance <= 1.0 + self.tolerance):
                return found
            chosen = finer

    def fold_later(self, flow: Flow, costs: list[float]) -> list[Layout]:
        """Return balanced layouts whose last units go to a component behind the first, if any may."""
        if self.fold is not None:
            return []
        ways = fold_later(flow, costs, self.components, speeds=self.speeds, slack=self.tolerance)
        return [self.shift_cuts(flow, costs, each) for each in ways]

    def shift_cuts(self, flow: Flow, costs: list[float], partition: Partition) -> Layout:
        """Move single cuts by a unit as long as the layout gets better once its parts are joined."""
        speeds = self.speeds or (1.0,) * self.components
        owners, best = partition.owners, join(self.root, flow, partition)
        while True:
            tried = [
                (each, join(self.root, flow, weigh(flow, each, costs, speeds)))
                for each in _neighbours(owners)
            ]
            moved, better = min(tried, key=lambda each: self.rank(each[1]), default=(owners, best))
            if self.rank(better) >= self.rank(best):
                return best
            owners, best = moved, better

    def rank(self, layout: Layout) -> tuple[bool, float, float, int]:
        """Return what the best layout has least of."""
        partition = layout.partition
        # Of equals none folded, or onto the first: what the last units read of before is then the freshest.
        seat = 1 + partition.tail if partition.folded else 0
        if partition.balance <= 1.0 + self.tolerance:
            return False, partition.traffic_bytes, partition.balance, seat
        return True, partition.balance, partition.traffic_bytes, seat


def _beside_cuts(flow: Flow, partition: Partition) -> set[str]:
    """Return the names of the units on both sides of every change of owner."""
    owners, names = partition.owners, flow.names
    cuts = [place for place in range(1, len(names)) if owners[place] != owners[place - 1]]
    return {names[place] for cut in cuts for place in (cut - 1, cut)}


def _neighbours(owners: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the owners after each single move of one cut by one unit that leaves everybody a unit."""
    found = []
    for place in range(1, len(owners)):
        before, after = owners[place - 1], owners[place]
        if before != after:
            found.append((*owners[: place - 1], after, *owners[place:]))
            found.append((*owners[:place], before, *owners[place + 1 :]))
    # A run that vanishes would make neighbours of components that are none, or undo a fold.
    runs = sum(first != second for first, second in pairwise(owners))
    return [each for each in found if sum(first != second for first, second in pairwise(each)) == runs]


def _refine(chosen: tuple[Call, ...], names: set[str]) -> tuple[Call, ...]:
    """Replace the calls in ``names`` by those they make, where these account for them."""
    return tuple(
        part
        for call in chosen
        for part in (choose_units(call, 1.0) if call.name in names and divides(call) else (call,))
    )


def join(root: Call, flow: Flow, partition: Partition) -> Layout:
    """Put blocks in the place of their parts where one component owns all of them."""
    owner_of = dict(zip(flow.names, partition.owners, strict=True))
    held: dict[str, frozenset[int]] = {}

    def gather(call: Call) -> frozenset[int]:
        if call.name in owner_of:
            held[call.name] = frozenset({owner_of[call.name]})
        else:
            held[call.name] = frozenset().union(*map(gather, call.inside))
        return held[call.name]

    def visit(call: Call) -> list[Call]:
        found: list[Call] = []
        for part in call.inside:
            if part.movable and len(held[part.name]) == 1:
                found.append(part)
            elif held[part.name]:
                found.extend(visit(part))
        return found

    gather(root)
    joined = connect(root, visit(root))
    owners = tuple(min(held[name]) for name in joined.names)
    return Layout(joined, replace(partition, owners=owners, traffic_bytes=count_traffic(joined, owners)))
