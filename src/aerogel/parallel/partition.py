"""Divide a denoiser's units among devices: the slowest device as fast as can be, then the least traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

import numpy as np
import numpy.typing as npt

from aerogel.errors import ConfigError, compose
from aerogel.parallel.flow import Flow
from aerogel.parallel.trace import Source

_SLACK = 0.03
_NEVER = 1 << 60

_Ints = npt.NDArray[np.int_]
_Floats = npt.NDArray[np.float64]


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
    limit = (1.0 + slack) * sum(costs) / sum(speeds)
    if not any(search.fits(kind, limit) for kind in kinds):
        limit = min(search.best_time(kind, limit) for kind in kinds)
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
    """Find divisions by their bottleneck and their traffic.

    Matrices [begin, end] hold what is true of units [begin, end).
    """

    def __init__(self, flow: Flow, costs: Sequence[float], speeds: Sequence[float]) -> None:
        self._speeds = speeds
        self._count = len(costs)
        self._sums = np.array([0.0, *accumulate(costs)])
        self._spans = self._sums - self._sums[:, None]
        self._received, self._returned = _measure_reads(flow)

    def fits(self, fold: bool, limit: float) -> bool:
        """Tell whether there is a division whose slowest device takes at most ``limit``."""
        starts, stops, last, speeds = self._middles(fold, limit)
        reached = np.zeros((len(starts), self._count + 1), dtype=bool)
        reached[np.arange(len(starts)), starts] = True
        for speed in speeds:
            # All ends, not the furthest alone: a slow device may need the light unit that comes first.
            room = (self._sums + limit * speed) * (1.0 + 1e-12)
            furthest = np.searchsorted(self._sums, room, side="right") - 1
            nearest = np.searchsorted(furthest, np.arange(self._count + 1))
            before = np.zeros((len(starts), self._count + 2), dtype=int)
            np.cumsum(reached, axis=1, out=before[:, 1:])
            reached = before[:, :-1] > before[:, np.minimum(nearest, self._count + 1)]
        ends = np.arange(self._count + 1)
        return bool((reached & (ends >= stops[:, None]) & (ends <= last)).any())

    def best_time(self, fold: bool, low: float) -> float:
        """Return the least time of the slowest device, above ``low``, to one part in a million."""
        high = self._sums[-1] / min(self._speeds)
        while high - low > 1e-6 * high:
            middle = 0.5 * (low + high)
            if self.fits(fold, middle):
                high = middle
            else:
                low = middle
        return float(high)

    def _middles(self, fold: bool, limit: float) -> tuple[_Ints, _Ints, int, Sequence[float]]:
        """Return the run of units that is left to the others, and the others' speeds.

        It begins at ``starts`` [heads], one for each head that component 0 may own, and ends at ``stops``
        [heads], where its tail is the longest, or later, up to the last unit but one.
        """
        if not fold:
            whole = np.array([self._count])
            return np.array([0]), whole, self._count, self._speeds
        others = self._speeds[1:]
        room = limit * self._speeds[0]
        starts = np.arange(1, max(1, self._count - len(others)))
        starts = starts[self._sums[starts] <= room]
        least = self._sums[-1] - (room - self._sums[starts])
        stops = np.searchsorted(self._sums, least - 1e-12 * self._sums[-1], side="right")
        return starts, np.maximum(stops, starts + len(others)), self._count - 1, others

    def least_traffic(self, fold: bool, limit: float) -> _Found | None:
        """Return the division of least traffic whose slowest device takes at most ``limit``."""
        best: _Found | None = None
        starts, stops, last, speeds = self._middles(fold, limit)
        steps = {speed: self._allow(limit * speed, speed) for speed in speeds}
        for start, first in zip(starts.tolist(), stops.tolist(), strict=True):
            if first > last:
                continue
            layers = self._share(start, last, [steps[speed] for speed in speeds])
            traffic, time = layers[-1].traffic[first : last + 1], layers[-1].time[first : last + 1]
            if fold:
                traffic = traffic + self._returned[start, first : last + 1]
                ends = self._sums[start] + self._sums[-1] - self._sums[first : last + 1]
                time = np.maximum(time, ends / self._speeds[0])
            place = np.lexsort((time, traffic))[0]
            found = int(traffic[place]), float(time[place])
            if found[0] < _NEVER and (best is None or found < best[:2]):
                best = (*found, self._owners(fold, start, _trace_cuts(layers, first + int(place))))
        return best

    def _allow(self, room: float, speed: float) -> tuple[_Ints, _Floats]:
        """Return the traffic [begin, end] and the time of a device that takes at most ``room``."""
        fits = (self._spans <= room * (1.0 + 1e-9)) & (np.arange(self._count + 1) > self._begins())
        return np.where(fits, self._received, _NEVER), self._spans / speed

    def _begins(self) -> _Ints:
        return np.arange(self._count + 1)[:, None]

    def _share(self, start: int, last: int, steps: Sequence[tuple[_Ints, _Floats]]) -> list[_Layer]:
        """Return, for each device and each end of its run, the least traffic of what is shared so far."""
        size = self._count + 1
        layer = _Layer(np.full(size, _NEVER), np.zeros(size), np.zeros(size, int), np.zeros(size, int))
        layer.traffic[start] = 0
        layers = []
        for traffic, time in steps:
            layer = _extend(layer, traffic, time, last)
            layers.append(layer)
        return layers

    def _owners(self, fold: bool, start: int, cuts: Sequence[int]) -> tuple[int, ...]:
        owners: list[int] = [0] * start
        begin = start
        for place, end in enumerate(cuts):
            owners += [place + (1 if fold else 0)] * (end - begin)
            begin = end
        return tuple(owners + [0] * (self._count - begin))


@dataclass(frozen=True)
class _Layer:
    """Hold, for each end of a device's run, the best way there: by traffic, then time, then earlier cuts.

    ``rank`` orders the ways by their cuts, ``begin`` is where the device's own run begins.
    """

    traffic: _Ints
    time: _Floats
    rank: _Ints
    begin: _Ints


def _extend(before: _Layer, traffic: _Ints, time: _Floats, last: int) -> _Layer:
    """Return the best ways to all ends up to ``last`` with one device more."""
    size = len(before.traffic)
    after = _Layer(np.full(size, _NEVER), np.zeros(size), np.zeros(size, int), np.zeros(size, int))
    (reached,) = np.nonzero(before.traffic < _NEVER)
    if not len(reached) or reached[0] >= last:
        return after
    low, high = int(reached[0]), int(reached[-1]) + 1
    ends = slice(low + 1, last + 1)
    sums = before.traffic[low:high, None] + traffic[low:high, ends]
    least = sums.min(0)
    times = np.maximum(before.time[low:high, None], time[low:high, ends])
    times[sums > least] = inf
    fastest = times.min(0)
    ranks = np.where(times <= fastest, before.rank[low:high, None], size)
    begins = low + ranks.argmin(0)
    after.traffic[ends] = np.minimum(least, _NEVER)
    after.time[ends] = fastest
    after.begin[ends] = begins
    after.rank[ends][np.argsort(before.rank[begins], kind="stable")] = np.arange(len(begins))
    return after


def _trace_cuts(layers: Sequence[_Layer], end: int) -> list[int]:
    """Return where the runs of all devices end that lead to ``end``."""
    cuts = []
    for layer in reversed(layers):
        cuts.append(end)
        end = int(layer.begin[end])
    return cuts[::-1]


def _measure_reads(flow: Flow) -> tuple[_Ints, _Ints]:
    """Return the bytes that units [begin, end) read of others, and those that later units read of them."""
    size = len(flow.units) + 1
    received, returned = np.zeros((size, size + 1), int), np.zeros((size, size), int)
    place = {name: number for number, name in enumerate(flow.names)}
    readers: dict[Source, list[int]] = {}
    for unit, read in enumerate(flow.reads):
        for source in read:
            readers.setdefault(source, []).append(unit)
    sizes = flow.sizes()
    for source, units in readers.items():
        made = place[source[0]]
        returned[: made + 1, made + 1 : units[-1] + 1] += sizes[source]
        begin = made + 1
        for unit in units:
            # Who begins behind the reader before this one begins to read with this one.
            received[begin : unit + 1, unit + 1] += sizes[source]
            begin = unit + 1
    return received.cumsum(1)[:, :size], returned
