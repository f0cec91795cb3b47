"""Divisions are as fast as any and send as little as any: held against all that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aerogel.errors import ConfigError
from aerogel.parallel.flow import Flow
from aerogel.parallel.partition import (
    Partition,
    count_traffic,
    divide,
    fold_later,
    needed_sources,
    require_legal,
    weigh,
)
from aerogel.parallel.trace import Source
from tests.unit.parallel.tiny import flow_of

Owners = tuple[int, ...]


def in_runs(units: int, components: int) -> Iterator[Owners]:
    """Yield all divisions into runs of units."""
    for cuts in combinations(range(1, units), components - 1):
        yield tuple(sum(cut <= unit for cut in cuts) for unit in range(units))


def all_divisions(units: int, components: int, fold: bool | None) -> list[Owners]:
    """Return all divisions of the kinds that ``fold`` asks for."""
    plain = list(in_runs(units, components))
    if components == 1 or units <= components:
        return plain
    folded = all_folds(units, components, 0)
    return {None: plain + folded, False: plain, True: folded}[fold]


def all_folds(units: int, components: int, seat: int) -> list[Owners]:
    """Return all divisions into one run more, the last of them for the component ``seat``."""
    longer = in_runs(units, components + 1)
    return [tuple(seat if owner == components else owner for owner in owners) for owners in longer]


@dataclass(frozen=True)
class Task:
    reads: list[set[Source]]
    sizes: list[list[int]]
    costs: list[float]
    speeds: list[float] | None
    components: int
    fold: bool | None
    slack: float

    @property
    def flow(self) -> Flow:
        return flow_of(self.reads, self.sizes)

    def time(self, owners: Owners) -> float:
        loads = [0.0] * self.components
        for owner, cost in zip(owners, self.costs, strict=True):
            loads[owner] += cost
        return max(load / speed for load, speed in zip(loads, self.every_speed, strict=True))

    @property
    def every_speed(self) -> list[float]:
        return self.speeds or [1.0] * self.components

    def traffic(self, owners: Owners) -> int:
        travels = {
            (source, number, owners[unit])
            for unit, read in enumerate(self.reads)
            for source, number in read
            if owners[ord(source) - 97] != owners[unit]
        }
        return sum(self.sizes[ord(source) - 97][number] for source, number, _ in travels)


@st.composite
def tasks(draw: st.DrawFn, *, equal: bool = False) -> Task:
    units = draw(st.integers(2, 8))
    components = draw(st.integers(1 if units < 3 else 2, min(4, units)))
    sizes = [draw(st.lists(st.integers(1, 100), min_size=1, max_size=2)) for _ in range(units)]
    reads: list[set[Source]] = []
    for unit in range(units):
        earlier = [(chr(97 + place), number) for place in range(unit) for number in range(len(sizes[place]))]
        reads.append(draw(st.sets(st.sampled_from(earlier), max_size=4)) if earlier else set())
    cost = st.one_of(st.integers(0, 5).map(float), st.floats(0.01, 10.0))
    speed = st.one_of(st.sampled_from([1.0, 2.0]), st.floats(0.2, 5.0))
    return Task(
        reads,
        sizes,
        draw(st.lists(cost, min_size=units, max_size=units).filter(lambda costs: sum(costs) > 0)),
        None if equal else draw(st.lists(speed, min_size=components, max_size=components)),
        components,
        draw(st.sampled_from([None, False, True])),
        draw(st.sampled_from([0.0, 0.03, 0.3, 3.0])),
    )


def solve(task: Task) -> Partition:
    return divide(
        task.flow, task.costs, task.components, fold=task.fold, speeds=task.speeds, slack=task.slack
    )


def require_best(task: Task) -> None:
    found = solve(task)
    divisions = all_divisions(len(task.costs), task.components, task.fold)
    assert found.owners in divisions, "monotone or folded, a unit for everybody"
    times = {owners: task.time(owners) for owners in divisions}
    best, ideal = min(times.values()), sum(task.costs) / sum(task.every_speed)
    limit = max(best, (1.0 + task.slack) * ideal)
    assert times[found.owners] <= limit * (1.0 + 1e-5)

    edge = 1.0 + 1e-12 if limit == best else 1.0 - 1e-9
    within = [owners for owners, time in times.items() if time <= limit * edge]
    least = min((task.traffic(owners) for owners in within), default=inf)
    assert found.traffic_bytes == task.traffic(found.owners) <= least
    equal = [times[owners] for owners in within if task.traffic(owners) == found.traffic_bytes]
    assert times[found.owners] <= min(equal, default=inf) * (1.0 + 1e-5), "then the best balanced"


@settings(max_examples=100)
@given(tasks(equal=True))
def test_no_division_within_the_limit_sends_less(task: Task) -> None:
    require_best(task)


@settings(max_examples=100)
@given(tasks())
def test_no_division_of_unequal_devices_within_the_limit_sends_less(task: Task) -> None:
    require_best(task)


@settings(max_examples=200)
@given(tasks())
def test_no_fold_onto_a_later_component_within_the_limit_sends_less(task: Task) -> None:
    options = {"speeds": task.speeds, "slack": task.slack}
    found = {each.tail: each for each in fold_later(task.flow, task.costs, task.components, **options)}
    limit = (1.0 + task.slack) * sum(task.costs) / sum(task.every_speed)
    assert found.keys() <= set(range(1, task.components - 1))
    for seat in range(1, task.components - 1):
        ways = all_folds(len(task.costs), task.components, seat)
        rank = {way: (task.traffic(way), task.time(way)) for way in ways}
        sure = [way for way in ways if rank[way][1] <= limit * (1.0 - 1e-9)]
        if seat in found:
            owners = found[seat].owners
            assert owners in ways
            assert found[seat] == weigh(task.flow, owners, task.costs, task.every_speed)
            assert found[seat].folded
            require_legal(task.flow, owners)
            traffic, time = rank[owners]
            assert time <= limit * (1.0 + 1e-8)
            assert all((traffic, time * (1.0 - 1e-8)) <= rank[way] for way in sure)
        else:
            assert not sure


def test_the_last_unit_goes_where_most_of_what_it_reads_is_made() -> None:
    """Of what it reads the third unit makes 50 bytes, the one before it one."""
    reads: list[set[Source]] = [set(), {("a", 0)}, {("b", 0)}, {("c", 0)}, {("d", 0)}, {("e", 0), ("c", 1)}]
    flow = flow_of(reads, [[1], [1], [1, 50], [1], [1], [1]])
    costs = [3.0, 1.5, 1.0, 2.5, 0.5, 0.5]
    (found,) = fold_later(flow, costs, 3)
    assert (found.owners, found.traffic_bytes) == ((0, 1, 1, 2, 2, 1), 3)
    assert (found.balance, found.tail, found.folded) == (pytest.approx(1.0), 1, True)
    assert divide(flow, costs, 3).traffic_bytes > 50


def test_nothing_is_folded_onto_a_later_component_where_no_balance_is_reached() -> None:
    assert fold_later(chain([1] * 5), [9.0, 1.0, 1.0, 1.0, 9.0], 3) == []
    assert fold_later(chain([1] * 3), [1.0] * 3, 3, slack=3.0) == [], "no unit for a fourth run"
    assert fold_later(chain([1] * 3), [1.0] * 3, 2, slack=3.0) == [], "one of two is the first"


@pytest.mark.parametrize(
    ("sizes", "costs", "speeds", "owners"),
    [
        ([9, 9, 1, 1, 1], [0.1, 0.1, 0.1, 9.0, 0.1], [1.0, 1.0, 4.0], (0, 0, 1, 2, 2)),
        ([1, 1, 1, 9, 1], [0.1, 8.0, 8.0, 0.1, 0.1], [1.0, 8.0, 1.0], (0, 1, 1, 2, 0)),
    ],
    ids=["contiguous", "folded"],
)
def test_a_slow_device_between_fast_ones_gets_a_light_unit(
    sizes: list[int], costs: list[float], speeds: list[float], owners: Owners
) -> None:
    """Whoever comes before it must not take all light units for itself."""
    flow = chain(sizes)
    found = divide(flow, costs, 3, fold=owners[-1] == 0, speeds=speeds, slack=0.0)
    assert found.balance <= weigh(flow, owners, costs, speeds).balance * (1.0 + 1e-5)


@settings(max_examples=60)
@given(tasks())
def test_a_division_says_what_it_is(task: Task) -> None:
    found = solve(task)
    owners = found.owners
    require_legal(task.flow, owners)
    assert found == weigh(task.flow, owners, task.costs, task.every_speed)
    assert (found.components, found.tail) == (task.components, owners[-1])
    assert found.folded == (task.components > 1 and owners[-1] == 0)
    assert sum(found.loads) == pytest.approx(1.0)
    owned = [cost for owner, cost in zip(owners, task.costs, strict=True) if owner == 0]
    assert found.loads[0] == pytest.approx(sum(owned) / sum(task.costs))
    ideal = sum(task.costs) / sum(task.every_speed)
    assert found.balance == pytest.approx(task.time(owners) / ideal)


def chain(sizes: Sequence[int]) -> Flow:
    """Return units that each read the one before."""
    reads: list[set[Source]] = [set(), *({(chr(96 + unit), 0)} for unit in range(1, len(sizes)))]
    return flow_of(reads, [[size] for size in sizes])


def test_cuts_go_where_little_travels_within_the_slack() -> None:
    flow, costs = chain([9, 9, 9, 1, 9, 9]), [1.0] * 6
    assert divide(flow, costs, 2, fold=False, slack=0.0).owners == (0, 0, 0, 1, 1, 1)
    assert divide(flow, costs, 2, fold=False, slack=0.3).owners == (0, 0, 0, 1, 1, 1)
    assert divide(flow, costs, 2, fold=False, slack=0.34).owners == (0, 0, 0, 0, 1, 1)


def test_of_equal_traffic_the_best_balanced_is_taken() -> None:
    flow, costs = chain([1] * 8), [1.0] * 8
    assert divide(flow, costs, 2, fold=False, slack=1.0).balance == pytest.approx(1.0)
    folded = divide(flow, costs, 2, fold=True, slack=1.0)
    assert (folded.balance, folded.traffic_bytes) == (pytest.approx(1.0), 2)
    assert divide(chain([1] * 3), [1.0] * 3, 2, fold=True, slack=3.0).owners == (0, 1, 0)


def test_without_slack_nothing_slower_is_taken_however_little_it_sends() -> None:
    costs = [1.0, 2e-4, 1.0 - 1e-4]
    assert divide(chain([99, 1, 1]), costs, 2, fold=False, slack=0.0).owners == (0, 1, 1)


def test_a_fold_keeps_a_skip_at_home() -> None:
    reads: list[set[Source]] = [set(), {("a", 0)}, {("b", 0)}, {("c", 0), ("a", 1)}]
    flow, costs = flow_of(reads, [[1, 50], [1], [1], [1]]), [1.0] * 4
    free = divide(flow, costs, 2)
    assert (free.owners, free.folded, free.traffic_bytes, free.tail) == ((0, 1, 1, 0), True, 2, 0)
    plain = divide(flow, costs, 2, fold=False)
    assert (plain.owners, plain.folded, plain.traffic_bytes, plain.tail) == ((0, 0, 1, 1), False, 51, 1)


def test_faster_devices_get_more() -> None:
    found = divide(chain([1] * 6), [1.0] * 6, 2, fold=False, speeds=[1.0, 2.0])
    assert found.owners == (0, 0, 1, 1, 1, 1)
    assert found.loads == pytest.approx((1 / 3, 2 / 3))
    assert found.balance == pytest.approx(1.0)
    assert divide(chain([1] * 6), [1.0] * 6, 2, fold=False, speeds=[2.0, 1.0]).owners == (0, 0, 0, 0, 1, 1)


@pytest.mark.parametrize(("speeds", "middle"), [([2.0, 1.0], 2), ([1.0, 2.0], 4)])
def test_a_fold_is_as_wide_as_its_device_is_fast(speeds: list[float], middle: int) -> None:
    found = divide(chain([1] * 6), [1.0] * 6, 2, fold=True, speeds=speeds)
    assert found.owners.count(1) == middle
    assert found.balance == pytest.approx(1.0)


@pytest.mark.parametrize(("units", "components"), [(3, 1), (3, 3)])
def test_where_a_fold_has_no_room_there_is_none(units: int, components: int) -> None:
    found = divide(chain([1] * units), [1.0] * units, components, fold=True)
    assert not found.folded
    assert set(found.owners) == set(range(components))


def test_a_tensor_travels_once_to_each_device_that_reads_it() -> None:
    reads: list[set[Source]] = [set(), {("a", 0)}, {("a", 0)}, {("a", 0), ("a", 1), ("c", 0)}, {("a", 0)}]
    flow = flow_of(reads, [[100, 10], [1], [1], [1], [1]])
    assert count_traffic(flow, (0, 0, 0, 0, 0)) == 0
    assert count_traffic(flow, (0, 1, 1, 0, 0)) == 100 + 1, "once for two units of one device"
    assert count_traffic(flow, (0, 1, 1, 2, 2)) == 100 + (100 + 10 + 1), "twice for two devices"
    assert count_traffic(flow, (0, 1, 1, 2, 3)) == 100 + (100 + 10 + 1) + 100
    assert needed_sources(flow, (0, 1, 1, 2, 2)) == {
        0: frozenset(),
        1: {("a", 0)},
        2: {("a", 0), ("a", 1), ("c", 0)},
    }


@pytest.mark.parametrize(
    "owners",
    [
        (0, 0, 0, 0),
        (0, 0, 1, 1),
        (0, 1, 2, 3),
        (0, 1, 1, 0),
        (0, 1, 2, 0),
        (0, 1, 2, 1),
        (0, 2, 2, 5),
    ],
)
def test_runs_and_folds_are_legal(owners: Owners) -> None:
    require_legal(chain([1] * 4), owners)


@pytest.mark.parametrize(
    ("owners", "edge"),
    [
        ((1, 0, 0, 2), "'a' of component 1 feeding 'b' of component 0"),
        ((0, 2, 1, 3), "'b' of component 2 feeding 'c' of component 1"),
        ((0, 1, 0, 1), "'b' of component 1 feeding 'c' of component 0"),
        ((0, 2, 2, 1), "'c' of component 2 feeding 'd' of component 1"),
    ],
)
def test_data_that_flows_back_is_refused_by_name(owners: Owners, edge: str) -> None:
    with pytest.raises(
        ConfigError, match=f"expected components in the order .*; got {edge}; what to do: give"
    ):
        require_legal(chain([1] * 4), owners)


def test_units_that_read_nothing_of_each_other_may_have_any_owner() -> None:
    require_legal(flow_of([set(), set(), {("a", 0)}]), (1, 0, 1))


@pytest.mark.parametrize("components", [4, 0, -1])
def test_more_components_than_units_are_refused(components: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"1 to 3 components, the units of this denoiser; got {components};"
    ):
        divide(chain([1] * 3), [1.0] * 3, components)


@pytest.mark.parametrize(
    "speeds", [[1.0], [1.0, 1.0, 1.0], [], [1.0, 0.0], [-1.0, 1.0], [1.0, nan], [nan, 1.0]]
)
def test_speeds_that_do_not_fit_are_refused(speeds: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"expected 2 speeds above 0; got \[.*\]; what to do: give one per"):
        divide(chain([1] * 3), [1.0] * 3, 2, speeds=speeds)


def test_hundreds_of_units_are_no_matter() -> None:
    sizes = [1 if unit % 10 == 9 else 5 for unit in range(120)]
    for fold in (False, True):
        found = divide(chain(sizes), [1.0] * 120, 4, fold=fold, slack=0.34)
        assert found.balance <= 1.34
        assert found.traffic_bytes == (4 if fold else 3), "all cuts lie behind a tensor of one byte"
