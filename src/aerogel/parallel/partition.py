"""Divide a denoiser's units among devices: the slowest device as fast as can be, then the least traffic."""

from __future__ import annotations

from bisect import bisect_left
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
_Bools = npt.NDArray[np.bool_]
# The component that owns the last units beside a run before; None where nobody does.
_Seat = int | None


@dataclass(frozen=True)
class Partition:
    """Hold who owns each unit.

    ``owners[u]`` is the component, 0 to ``components`` - 1, of unit u; components count in the order of
    execution. In a ``folded`` partition the last units belong to a component that others come after, mostly
    to component 0. ``loads`` are the components' shares of the time of all units; ``traffic_bytes`` is what
    travels in every round.
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

    In a fold the last run of units belongs to a component that has one before.

    Raises:
        ConfigError: it flows back, so that the result would be made of older inputs than it has to be.
    """
    first_of_tail = len(owners)
    while first_of_tail and owners[first_of_tail - 1] == owners[-1]:
        first_of_tail -= 1
    owner_of = dict(zip(flow.names, owners, strict=True))
    folded = owners[-1] in owners[:first_of_tail]
    for unit, read in enumerate(flow.reads):
        for source, _ in sorted(read):
            back = owner_of[source] > owners[unit]
            if back and not (folded and unit >= first_of_tail):
                raise ConfigError(
                    compose(
                        "components in the order of execution; only the last units may go to an earlier one",
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
    seats: list[_Seat] = [None, 0] if fold is None else [0 if fold else None]
    if components == 1 or len(flow.units) <= components:
        seats = [None]
    limit = (1.0 + slack) * sum(costs) / sum(speeds)
    if not any(search.fits(seat, limit) for seat in seats):
        limit = search.best_time(seats, limit)
    found = [search.least_traffic(seat, limit) for seat in seats]
    _, _, owners = min(each for each in found if each is not None)
    return weigh(flow, owners, costs, speeds)


def fold_later(
    flow: Flow,
    costs: Sequence[float],
    components: int,
    *,
    speeds: Sequence[float] | None = None,
    slack: float = _SLACK,
) -> list[Partition]:
    """Divide ``flow`` with the last run folded onto a component behind the first, in each way that balances.

    Returns, for each component but the first and the last, the division of least traffic, then the best
    balanced, of all whose slowest device is within ``slack`` of a perfect balance; none where there is none.
    Takes and raises what :func:`divide` does.
    """
    speeds = tuple(speeds) if speeds is not None else (1.0,) * components
    _require_possible(flow, components, speeds)
    search = _Search(flow, costs, speeds)
    limit = (1.0 + slack) * sum(costs) / sum(speeds)
    seats = range(1, components - 1) if len(flow.units) > components else ()
    found = [search.least_traffic(seat, limit) for seat in seats]
    return [weigh(flow, each[2], costs, speeds) for each in found if each is not None]


def weigh(flow: Flow, owners: Sequence[int], costs: Sequence[float], speeds: Sequence[float]) -> Partition:
    """Return the partition in which ``owners`` [units] own the units, with its loads and its traffic."""
    components, total = len(speeds), sum(costs)
    loads = [0.0] * components
    for owner, cost in zip(owners, costs, strict=True):
        loads[owner] += cost / total
    return Partition(
        owners=tuple(owners),
        components=components,
        folded=owners[-1] != components - 1,
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
        self._reads = _Reads(flow)

    def fits(self, seat: _Seat, limit: float) -> bool:
        """Tell whether there is a division whose slowest device takes at most ``limit``."""
        ends = np.arange(self._count + 1)
        reached = self._reach(ends[None] == 0, self._speeds[:seat], limit)
        if seat is None:
            return bool(reached[0, -1])
        begins, heads = self._heads(seat, limit, reached[0])
        reached = self._reach(ends == heads[:, None], self._speeds[seat + 1 :], limit)
        return bool((reached & self._tails(seat, limit, begins, heads)).any())

    def _reach(self, reached: _Bools, speeds: Sequence[float], limit: float) -> _Bools:
        """Return at which ends [ways, ends] runs may end that begin where others ended, one per speed."""
        for speed in speeds:
            # All ends, not the furthest alone: a slow device may need the light unit that comes first.
            room = (self._sums + limit * speed) * (1.0 + 1e-12)
            furthest = np.searchsorted(self._sums, room, side="right") - 1
            nearest = np.searchsorted(furthest, np.arange(self._count + 1))
            before = np.zeros((len(reached), self._count + 2), dtype=int)
            np.cumsum(reached, axis=1, out=before[:, 1:])
            reached = before[:, :-1] > before[:, np.minimum(nearest, self._count + 1)]
        return reached

    def _heads(self, seat: int, limit: float, reached: _Bools) -> tuple[_Ints, _Ints]:
        """Return the begins and the ends of the runs that ``seat`` may own before the last units."""
        left = self._sums[-1] - self._sums <= limit * sum(self._speeds[seat:]) * (1.0 + 1e-9)
        fits = self._spans <= limit * self._speeds[seat] * (1.0 + 1e-12)
        runs = fits & (np.arange(self._count + 1) > self._begins()) & (reached & left)[:, None]
        begins, ends = np.nonzero(runs)
        return begins, ends

    def _tails(self, seat: int, limit: float, begins: _Ints, ends: _Ints) -> _Bools:
        """Return where the last units may begin [heads, begins] that ``seat`` owns beside [begin, end)."""
        whole = self._spans[begins, ends][:, None] + self._spans[:, -1]
        fits: _Bools = whole <= limit * self._speeds[seat] + 1e-12 * self._sums[-1]
        fits[:, -1] = False
        return fits

    def best_time(self, seats: Sequence[_Seat], low: float) -> float:
        """Return the least time of the slowest device, above ``low``, to one part in a million."""
        best = float(self._sums[-1] / min(self._speeds))
        for seat in seats:
            # Loose limits leave a fold too many ways: only what betters the best is looked at closer.
            if not self.fits(seat, best * (1.0 - 1e-6)):
                continue
            high, floor = best, low
            while high - floor > 1e-6 * high:
                middle = 0.5 * (floor + high)
                if self.fits(seat, middle):
                    high = middle
                else:
                    floor = middle
            best = high
        return best

    def least_traffic(self, seat: _Seat, limit: float) -> _Found | None:
        """Return the division of least traffic whose slowest device takes at most ``limit``."""
        allowed = {speed: self._allow(limit * speed, speed) for speed in self._speeds}
        steps = [allowed[speed] for speed in self._speeds]
        before = self._share(0, steps[:seat])
        if seat is None:
            traffic, time = int(before[-1].traffic[-1]), float(before[-1].time[-1])
            owners = self._owners(_trace_cuts(before, self._count), None)
            return (traffic, time, owners) if traffic < _NEVER else None
        best: _Found | None = None
        begins, heads = self._heads(seat, limit, before[-1].traffic < _NEVER)
        tails = self._tails(seat, limit, begins, heads)
        after: dict[int, list[_Layer]] = {}
        last, passed = -1, np.zeros(0, int)
        for begin, end, fits in zip(begins.tolist(), heads.tolist(), tails, strict=True):
            base = int(before[-1].traffic[begin] + self._reads.received[begin, end])
            if best is not None and base > best[0]:
                continue
            if begin != last:
                last, passed = begin, self._reads.passed(begin)
            if end not in after:
                after[end] = self._share(end, steps[seat + 1 :])
            layer = after[end][-1]
            traffic = base + layer.traffic + self._reads.later[end] + passed[end]
            traffic[~fits] = _NEVER
            own = (self._spans[begin, end] + self._spans[:, -1]) / self._speeds[seat]
            time = np.maximum(np.maximum(layer.time, own), before[-1].time[begin])
            place = int(np.lexsort((time, traffic))[0])
            found = int(traffic[place]), float(time[place])
            if found[0] < _NEVER and (best is None or found < best[:2]):
                cuts = [*_trace_cuts(before, begin), *_trace_cuts(after[end], place)]
                best = (*found, self._owners(cuts, seat))
        return best

    def _allow(self, room: float, speed: float) -> tuple[_Ints, _Floats]:
        """Return the traffic [begin, end] and the time of a device that takes at most ``room``."""
        fits = (self._spans <= room * (1.0 + 1e-9)) & (np.arange(self._count + 1) > self._begins())
        return np.where(fits, self._reads.received, _NEVER), self._spans / speed

    def _begins(self) -> _Ints:
        return np.arange(self._count + 1)[:, None]

    def _share(self, start: int, steps: Sequence[tuple[_Ints, _Floats]]) -> list[_Layer]:
        """Return, for no device, then for each, the least traffic to each end of its run from ``start``."""
        size = self._count + 1
        layer = _Layer(np.full(size, _NEVER), np.zeros(size), np.zeros(size, int), np.zeros(size, int))
        layer.traffic[start] = 0
        layers = [layer]
        for traffic, time in steps:
            layers.append(_extend(layers[-1], traffic, time))
        return layers

    def _owners(self, cuts: Sequence[int], seat: _Seat) -> tuple[int, ...]:
        """Return who owns what if component n owns [cuts[n], cuts[n + 1]), and ``seat`` what is left."""
        runs = np.diff(cuts)
        left = [] if seat is None else [seat] * (self._count - cuts[-1])
        return (*np.repeat(np.arange(len(runs)), runs).tolist(), *left)


@dataclass(frozen=True)
class _Layer:
    """Hold, for each end of a device's run, the best way there: by traffic, then time, then earlier cuts.

    ``rank`` orders the ways by their cuts, ``begin`` is where the device's own run begins.
    """

    traffic: _Ints
    time: _Floats
    rank: _Ints
    begin: _Ints


def _extend(before: _Layer, traffic: _Ints, time: _Floats) -> _Layer:
    """Return the best ways to all ends with one device more."""
    size = len(before.traffic)
    after = _Layer(np.full(size, _NEVER), np.zeros(size), np.zeros(size, int), np.zeros(size, int))
    (reached,) = np.nonzero(before.traffic < _NEVER)
    if not len(reached) or reached[0] + 1 >= size:
        return after
    low, high = int(reached[0]), int(reached[-1]) + 1
    ends = slice(low + 1, size)
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
    """Return where the runs of all devices end that lead to ``end``, after where the first begins."""
    cuts = [end]
    for layer in reversed(layers[1:]):
        end = int(layer.begin[end])
        cuts.append(end)
    return cuts[::-1]


class _Reads:
    """Tell what runs of units read of each other, in bytes.

    ``received`` [begin, end] is what units [begin, end) read of those before, ``later`` [begin, end] what is
    made in [begin, end) and read behind.
    """

    def __init__(self, flow: Flow) -> None:
        size = len(flow.units) + 1
        received, later = np.zeros((size, size + 1), int), np.zeros((size, size), int)
        place = {name: number for number, name in enumerate(flow.names)}
        readers: dict[Source, list[int]] = {}
        for unit, read in enumerate(flow.reads):
            for source in read:
                readers.setdefault(source, []).append(unit)
        sizes = flow.sizes()
        self._sources = [(place[source[0]], units, sizes[source]) for source, units in readers.items()]
        for made, units, weight in self._sources:
            later[: made + 1, made + 1 : units[-1] + 1] += weight
            begin = made + 1
            for unit in units:
                # Who begins behind the reader before this one begins to read with this one.
                received[begin : unit + 1, unit + 1] += weight
                begin = unit + 1
        self.received: _Ints = received.cumsum(1)[:, :size]
        self.later: _Ints = later

    def passed(self, begin: int) -> _Ints:
        """Return what is made before ``begin`` [end, last], read from ``last`` on but not in [begin, end)."""
        found = np.zeros_like(self.later)
        for made, units, weight in self._sources:
            if made < begin <= units[-1]:
                first = units[bisect_left(units, begin)]
                found[begin : first + 1, : units[-1] + 1] += weight
        return found
