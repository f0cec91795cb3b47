"""Divide a denoiser's units among devices: the slowest device as fast as can be, then the least traffic."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from aerogel.errors import ConfigError, compose
from aerogel.parallel.flow import Flow
from aerogel.parallel.trace import Source

_SLACK = 0.03


@dataclass(frozen=True)
class Partition:
    """Hold who owns each unit.

    ``owners[u]`` is the component, 0 to ``components`` - 1, of unit u; components count in the order of
    execution. In a ``folded`` partition component 0 owns the first and the last units. ``loads`` are the
    components' shares of the time of all units; ``traffic_bytes`` is what travels in every round.
    """

    owners: tuple[int, ...]
    components: int
    folded: bool
    loads: tuple[float, ...]
    traffic_bytes: int
    balance: float

    @property
    def tail(self) -> int:
        """Return the component that gives the denoiser's result."""
        return self.owners[-1]


def needed_sources(flow: Flow, owners: Sequence[int]) -> dict[int, frozenset[Source]]:
    """Return, for each component, the outputs of others that its units read: all that has to travel."""
    owner_of = dict(zip(flow.names, owners, strict=True))
    found: dict[int, set[Source]] = {owner: set() for owner in owners}
    for owner, read in zip(owners, flow.reads, strict=True):
        found[owner] |= {source for source in read if owner_of[source[0]] != owner}
    return {owner: frozenset(sources) for owner, sources in found.items()}


def count_traffic(flow: Flow, owners: Sequence[int]) -> int:
    """Return the bytes that travel in every round, the denoiser's result not counted."""
    sizes = flow.sizes()
    return sum(sizes[source] for needed in needed_sources(flow, owners).values() for source in needed)


def require_legal(flow: Flow, owners: Sequence[int]) -> None:
    """Check that data flows from each component to itself or to a later one, but for a fold.

    Raises:
        ConfigError: it flows back, so that a round would use what is two rounds old.
    """
    first_of_tail = len(owners)
    while first_of_tail and owners[first_of_tail - 1] == owners[-1]:
        first_of_tail -= 1
    owner_of = dict(zip(flow.names, owners, strict=True))
    for unit, read in enumerate(flow.reads):
        for source, _ in sorted(read):
            back = owner_of[source] > owners[unit]
            folded = unit >= first_of_tail and owners[unit] == owners[0]
            if back and not folded:
                raise ConfigError(
                    compose(
                        "components in the order of execution; only the first may own the last units too",
                        f"{source!r} of component {owner_of[source]} feeding "
                        f"{flow.units[unit].name!r} of component {owners[unit]}",
                        "give the second to the same component or a later one",
                    )
                )


def divide(
    flow: Flow,
    costs: Sequence[float],
    components: int,
    *,
    fold: bool | None = None,
    speeds: Sequence[float] | None = None,
    slack: float = _SLACK,
) -> Partition:
    """Divide ``flow`` into ``components`` runs of units, or with the first and the last run folded into one.

    ``costs`` [units] are times (or multiply-accumulates) on a device of speed 1, ``speeds`` [components] the
    devices' relative speeds. Of all divisions whose slowest device is within ``slack`` of a perfect balance,
    or as near to it as can be, the one with the least traffic is taken, then the best balanced. ``fold`` True
    or False asks for one kind; None takes the better. (Section 3.2 of arXiv 2406.06911 asks for equal loads;
    the search is ours.)

    Raises:
        ConfigError: more components than units, or speeds that do not fit.
    """
    speeds = tuple(speeds) if speeds is not None else (1.0,) * components
    _require_possible(flow, components, speeds)
    search = _Search(flow, costs, speeds)
    kinds = [False, True] if fold is None else [fold]
    if components == 1 or len(flow.units) <= components:
        kinds = [False]
    total = sum(costs)
    limit = max(min(search.best_time(kind) for kind in kinds), (1.0 + slack) * total / sum(speeds))
    found = [search.least_traffic(kind, limit) for kind in kinds]
    _, _, owners = min(each for each in found if each is not None)
    return weigh(flow, owners, costs, speeds)


def weigh(flow: Flow, owners: Sequence[int], costs: Sequence[float], speeds: Sequence[float]) -> Partition:
    """Return the partition in which ``owners`` [units] own the units, with its loads and its traffic."""
    components, total = len(speeds), sum(costs)
    loads = [0.0] * components
    for owner, cost in zip(owners, costs, strict=True):
        loads[owner] += cost / total
    return Partition(
        owners=tuple(owners),
        components=components,
        folded=components > 1 and owners[0] == owners[-1],
        loads=tuple(loads),
        traffic_bytes=count_traffic(flow, owners),
        balance=max(load / speed for load, speed in zip(loads, speeds, strict=True)) * sum(speeds),
    )


def _require_possible(flow: Flow, components: int, speeds: Sequence[float]) -> None:
    if not 1 <= components <= len(flow.units):
        raise ConfigError(
            compose(
                f"1 to {len(flow.units)} components, the units of this denoiser",
                f"{components}",
                "use fewer devices",
            )
        )
    if len(speeds) != components or not all(0.0 < speed < inf for speed in speeds):
        raise ConfigError(
            compose(f"{components} speeds above 0", f"{list(speeds)}", "give one per component")
        )


_Found = tuple[int, float, tuple[int, ...]]


class _Search:
    """Find divisions by their bottleneck and their traffic."""

    def __init__(self, flow: Flow, costs: Sequence[float], speeds: Sequence[float]) -> None:
        self._speeds = speeds
        self._sums = [0.0, *accumulate(costs)]
        self._count = len(costs)
        place = {name: number for number, name in enumerate(flow.names)}
        sizes = flow.sizes()
        self._reads = [[(source, place[source[0]], sizes[source]) for source in each] for each in flow.reads]
        self._received: dict[tuple[int, int], int] = {}

    def best_time(self, fold: bool) -> float:
        """Return the least time of the slowest device, to one part in a million."""
        low, high = 0.0, self._sums[-1] / min(self._speeds)
        while high - low > 1e-6 * high:
            middle = 0.5 * (low + high)
            if any(self._stops(start, stop, middle) for start, stop in self._middles(fold, middle)):
                high = middle
            else:
                low = middle
        return high

    def _middles(self, fold: bool, limit: float) -> Iterator[tuple[int, int]]:
        """Yield the runs of units [start, stop) left to the others, for each head the longest tail."""
        if not fold:
            yield 0, self._count
            return
        others = len(self._speeds) - 1
        room = limit * self._speeds[0]
        for start in range(1, self._count - others):
            if self._sums[start] > room:
                return
            least = self._sums[-1] - (room - self._sums[start])
            stop = max(start + others, bisect_right(self._sums, least - 1e-12 * self._sums[-1]))
            if stop < self._count:
                yield start, stop

    def _stops(self, start: int, first: int, limit: float) -> list[int]:
        """Return where, from ``first`` on, the units that the others share from ``start`` on may end."""
        speeds = self._speeds[1:] if start else self._speeds
        last = self._count - 1 if start else self._count
        reached = {start}
        for speed in speeds:
            # All of them, not the furthest alone: a slow device may need the light unit that comes first.
            reached = {
                end
                for begin in reached
                for end in range(begin + 1, min(last, self._furthest(begin, limit * speed)) + 1)
            }
        return sorted(stop for stop in reached if stop >= first)

    def _furthest(self, begin: int, room: float) -> int:
        """Return where a run of units from ``begin`` that takes at most ``room`` has to end."""
        return bisect_right(self._sums, (self._sums[begin] + room) * (1.0 + 1e-12)) - 1

    def least_traffic(self, fold: bool, limit: float) -> _Found | None:
        """Return the division of least traffic whose slowest device takes at most ``limit``."""
        best: _Found | None = None
        for start, widest in self._middles(fold, limit):
            stops = self._stops(start, widest, limit)
            for stop, (traffic, time, cuts) in self._share(start, stops, limit).items():
                owners = self._owners(fold, start, stop, cuts)
                if fold:
                    traffic += self._receive_folded(start, stop)
                    ends = self._sums[start] + self._sums[-1] - self._sums[stop]
                    time = max(time, ends / self._speeds[0])
                if best is None or (traffic, time) < best[:2]:
                    best = (traffic, time, owners)
        return best

    def _share(
        self, start: int, stops: Sequence[int], limit: float
    ) -> dict[int, tuple[int, float, tuple[int, ...]]]:
        """Return, for each stop, the least traffic, its time and the cuts of sharing units [start, stop)."""
        folded = start > 0
        speeds = self._speeds[1:] if folded else self._speeds
        reached: dict[int, tuple[int, float, tuple[int, ...]]] = {start: (0, 0.0, ())}
        furthest = max(stops, default=start)
        for speed in speeds:
            following: dict[int, tuple[int, float, tuple[int, ...]]] = {}
            for begin, (traffic, time, cuts) in reached.items():
                end = begin + 1
                while end <= furthest and self._sums[end] - self._sums[begin] <= limit * speed * (1 + 1e-9):
                    spent = (self._sums[end] - self._sums[begin]) / speed
                    candidate = (traffic + self._receive(begin, end), max(time, spent), (*cuts, end))
                    if candidate < following.get(end, (inf, inf, ())):
                        following[end] = candidate
                    end += 1
            reached = following
        return {stop: reached[stop] for stop in stops if stop in reached}

    def _receive(self, begin: int, end: int) -> int:
        """Return the bytes that units [begin, end) read of other components' outputs."""
        key = (begin, end)
        if key not in self._received:
            self._received[key] = sum(
                {
                    source: size
                    for unit in range(begin, end)
                    for source, place, size in self._reads[unit]
                    if not begin <= place < end
                }.values()
            )
        return self._received[key]

    def _receive_folded(self, start: int, stop: int) -> int:
        return sum(
            {
                source: size
                for unit in range(stop, self._count)
                for source, place, size in self._reads[unit]
                if start <= place < stop
            }.values()
        )

    def _owners(self, fold: bool, start: int, stop: int, cuts: Sequence[int]) -> tuple[int, ...]:
        owners: list[int] = [0] * start
        begin = start
        for place, end in enumerate(cuts):
            owners += [place + (1 if fold else 0)] * (end - begin)
            begin = end
        return tuple(owners + [0] * (self._count - stop))
