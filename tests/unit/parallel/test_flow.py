"""Units are chosen by what they compute, and read each other at whatever depth they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aerogel.errors import ConfigError
from aerogel.parallel.flow import choose_units, connect, divides
from aerogel.parallel.trace import Call, Source
from tests.unit.parallel.tiny import (
    LINEAR,
    ROWS,
    WIDTH,
    Net,
    block,
    by_name,
    linear,
    rows,
    stage,
    trace,
    trace_unet,
)


def names(calls: Sequence[Call]) -> list[str]:
    return [call.name for call in calls]


def parts(*stages: str) -> list[str]:
    return [f"{each}.{part}" for each in stages for part in ("first", "second")]


@pytest.mark.parametrize(
    ("grain", "expected"),
    [
        (1.0, ["time", "s0", "s1", "s2", "head"]),
        (0.5, ["time", "s0", "s1", "s2", "head"]),
        (0.49, ["time", "s0.0", "s0.1", "s0.2", "s0.3", "s1", "s2", "head"]),
        (0.2, ["time", "s0.0", "s0.1", "s0.2", "s0.3", "s1.0", "s1.1", "s2.0", "s2.1", "head"]),
        (0.12, ["time", *parts("s0.0", "s0.1", "s0.2", "s0.3", "s1.0", "s1.1", "s2.0", "s2.1"), "head"]),
        (0.0, ["time", *parts("s0.0", "s0.1", "s0.2", "s0.3", "s1.0", "s1.1", "s2.0", "s2.1"), "head"]),
    ],
)
def test_a_call_heavier_than_the_grain_is_replaced_by_its_parts(grain: float, expected: list[str]) -> None:
    """The stages of 4, 2 and 2 blocks are 1/2, 1/4 and 1/4 of all, but for the time embedding."""
    assert names(choose_units(trace_unet(4, 2, 2), grain)) == expected


def test_a_call_that_computes_much_itself_is_not_divided() -> None:
    def attend(self: Any, x: Tensor) -> Tensor:
        return self.l(x) @ self.r(x).mT @ x  # type: ignore[no-any-return]

    root = trace(Net(lambda self, x: self.a(x), a=Net(attend, l=linear(), r=linear())))
    call = by_name(root)["a"]
    assert call.macs == 2 * LINEAR + 2 * ROWS * ROWS * WIDTH
    assert not divides(call)
    assert names(choose_units(root, 0.0)) == ["a"]


@pytest.mark.parametrize(("count", "fine"), [(1, True), (2, False)])
def test_a_call_that_computes_a_trifle_itself_is_divided(count: int, fine: bool) -> None:
    """The limit is 0.005 of its own: 16 of 4,112 multiply-accumulates are less, 64 of 4,160 are more."""

    def function(self: Any, x: Tensor) -> Any:
        return self.l(x), self.r(x), x[:count] @ x[:count].mT

    call = trace(Net(function, l=linear(), r=linear()))
    assert call.macs == 2 * LINEAR + count * count * WIDTH
    assert divides(call) is fine


def test_a_layer_is_not_divided() -> None:
    assert not divides(by_name(trace(stage(1)))["0.first"])


def test_a_call_around_one_layer_is_not_divided() -> None:
    root = trace(Net(lambda self, x: self.b(self.a(x)), a=nn.Sequential(linear()), b=linear()))
    assert names(choose_units(root, 0.0)) == ["a", "b"]


def test_a_call_around_one_other_is_divided_as_that_one() -> None:
    """A residual around a sequence of layers, or a wrapper of the whole denoiser."""
    root = trace(Net(lambda self, x: x + self.a(x), a=Net(lambda self, x: x + self.b(x), b=stage(3))))
    assert names(choose_units(root, 0.4)) == ["a.b.0", "a.b.1", "a.b.2"]


def test_what_may_not_move_is_replaced_by_its_parts_whatever_the_grain() -> None:
    def change(self: Any, x: Tensor) -> Tensor:
        x += self.l(x)
        return self.r(x)  # type: ignore[no-any-return]

    def function(self: Any, x: Tensor) -> Tensor:
        return self.c(self.relu(self.b(self.a(x))))  # type: ignore[no-any-return]

    denoiser = Net(
        function,
        a=linear(),
        b=Net(change, l=linear(), r=linear()),
        relu=nn.Sequential(nn.ReLU(inplace=True), nn.Identity()),
        c=nn.Identity(),
    )
    root = trace(denoiser)
    assert names(choose_units(root, 1.0)) == ["a", "b.l", "b.r", "c"]
    flow = connect(root, choose_units(root, 1.0))
    assert flow.names == ("a", "b.l", "b.r", "c"), "what computes nothing is left as glue"
    assert flow.reads == (frozenset(), {("a", 0)}, {("a", 0), ("b.l", 0)}, {("b.r", 0)})


def test_reads_are_resolved_to_the_chosen_depth() -> None:
    root = trace_unet(2, 1, 2)
    coarse = connect(root, choose_units(root, 1.0))
    assert coarse.names == ("s0", "s1", "s2", "head")
    assert coarse.reads == (frozenset(), {("s0", 0)}, {("s0", 0), ("s1", 0)}, {("s2", 0)})
    assert coarse.result == {("head", 0)}
    found = by_name(root)
    mixed = connect(root, [found[name] for name in ("time", "s0.0", "s0.1", "s1", *parts("s2.0"), "s2.1")])
    assert dict(zip(mixed.names, mixed.reads, strict=True)) == {
        "s0.0": frozenset(),
        "s0.1": {("s0.0", 0)},
        "s1": {("s0.1", 0)},
        "s2.0.first": {("s0.1", 0), ("s1", 0)},
        "s2.0.second": {("s2.0.first", 0)},
        "s2.1": {("s0.1", 0), ("s1", 0), ("s2.0.second", 0)},
    }
    assert mixed.result == {("s2.1", 0)}, (
        "the head is glue, through which the result is made of the last stage"
    )


def test_units_keep_what_they_cost_and_give() -> None:
    root = trace_unet(2, 1, 2)
    flow = connect(root, choose_units(root, 1.0))
    assert flow.macs == root.macs == 10 * LINEAR + WIDTH
    assert [unit.macs for unit in flow.units] == [4 * LINEAR, 2 * LINEAR, 4 * LINEAR, 0]
    assert flow.sizes() == {(name, 0): 4 * ROWS * WIDTH for name in ("s0", "s1", "s2", "head")}
    found = by_name(root)
    assert all(unit.outputs == found[unit.name].outputs for unit in flow.units)
    assert all(unit.shape == found[unit.name].shape for unit in flow.units)


def test_every_output_has_its_size() -> None:
    def split(self: Any, x: Tensor) -> Any:
        return self.l(x), self.r(x)[:2].double()

    root = trace(Net(lambda self, x: self.a(x), a=Net(split, l=linear(), r=linear())))
    flow = connect(root, root.inside)
    assert flow.sizes() == {("a", 0): 4 * ROWS * WIDTH, ("a", 1): 8 * 2 * WIDTH}
    assert flow.result == {("a", 0), ("a", 1)}


@pytest.mark.parametrize(("width", "kept"), [(40, False), (42, True)])
def test_light_sources_become_glue_and_heavy_ones_stay(width: int, kept: bool) -> None:
    """The limit is 0.005 of all: 41.0 of the 8,192 multiply-accumulates of four layers."""

    def function(self: Any, x: Tensor, time: Tensor) -> Tensor:
        added = self.after(self.source(time).sum())
        return self.a(x) + added  # type: ignore[no-any-return]

    layers = nn.Sequential(*(linear() for _ in range(4)))
    denoiser = Net(function, source=nn.Linear(1, width), a=layers, after=nn.Identity())
    root = trace(denoiser, rows(), torch.ones(1, 1))
    flow = connect(root, root.inside)
    if kept:
        assert flow.names == ("source", "after", "a")
        assert flow.reads == (frozenset(), {("source", 0)}, frozenset())
        assert flow.result == {("a", 0), ("after", 0)}
    else:
        assert flow.names == ("a",), "what depends on glue only is a source as well"
        assert flow.reads == (frozenset(),)
        assert flow.result == {("a", 0)}


def test_light_sources_are_light_all_together() -> None:
    """Each is 0.0024 of all, so that two are below the limit and the third is not."""

    def function(self: Any, x: Tensor, time: Tensor) -> Tensor:
        added = self.s(time).sum() + self.t(time).sum() + self.u(time).sum()
        return self.a(x) + added  # type: ignore[no-any-return]

    sources = {name: nn.Linear(1, 20) for name in "stu"}
    root = trace(
        Net(function, **sources, a=nn.Sequential(*(linear() for _ in range(4)))), rows(), torch.ones(1, 1)
    )
    assert connect(root, root.inside).names == ("u", "a")


def test_light_units_that_depend_on_others_stay() -> None:
    root = trace(Net(lambda self, x: self.norm(self.a(x)), a=linear(), norm=nn.LayerNorm(WIDTH)))
    flow = connect(root, root.inside)
    assert [(unit.name, unit.macs) for unit in flow.units] == [("a", LINEAR), ("norm", 0)]


@pytest.mark.parametrize("pair", [("s0", "s0.1"), ("s1", "s1.0.second"), ("s1.0", "s1.0.first")])
@pytest.mark.parametrize("turned", [False, True])
def test_a_unit_inside_another_is_refused(pair: tuple[str, str], turned: bool) -> None:
    root = trace_unet(2, 1)
    found = by_name(root)
    outer, inner = pair
    units = [found[name] for name in (pair[::-1] if turned else pair)]
    with pytest.raises(
        ConfigError, match=re.escape(f"got '{inner}' inside '{outer}'; what to do: name only")
    ):
        connect(root, units)


def test_units_beside_each_other_are_none_inside_another() -> None:
    root = trace(Net(lambda self, x: self.ab(self.a(x)), a=block(), ab=block()))
    assert connect(root, root.inside).names == ("a", "ab")


class Node(nn.Module):
    """Call some modules, each on the sum of earlier results and of the inputs ``taken`` for it."""

    def __init__(self, taken: list[list[int]], modules: list[nn.Module]) -> None:
        super().__init__()
        self.taken = taken
        self.steps = nn.ModuleList(modules)

    def forward(self, *given: Tensor) -> Any:
        values = list(given)
        for taken, step in zip(self.taken, self.steps, strict=True):
            chosen = [values[-1 - back % len(values)] for back in taken]
            if isinstance(step, Node):
                values.extend(step(*chosen))
            else:
                values.append(step(sum(chosen, torch.zeros((), device=chosen[0].device))))
        return tuple(values[-2:])


def _nodes(children: st.SearchStrategy[nn.Module]) -> st.SearchStrategy[nn.Module]:
    backs = st.lists(st.integers(0, 4), min_size=1, max_size=3)
    steps = st.lists(st.tuples(backs, children), min_size=1, max_size=4)
    return steps.map(lambda each: Node([taken for taken, _ in each], [module for _, module in each]))


LEAF: st.SearchStrategy[nn.Module] = st.builds(linear)
DENOISERS = _nodes(st.one_of(LEAF, _nodes(st.one_of(LEAF, _nodes(LEAF)))))


def leaves(calls: dict[str, Call], sources: Iterable[Source]) -> set[Source]:
    """Return the layers' outputs that ``sources`` are made of."""
    found: set[Source] = set()
    for name, number in sources:
        call = calls[name]
        found |= leaves(calls, call.made_of[number]) if call.inside else {(name, number)}
    return found


@settings(max_examples=40)
@given(DENOISERS, st.floats(0.0, 0.5))
def test_depths_agree(denoiser: nn.Module, grain: float) -> None:
    """What a unit reads is what its parts read of others, whatever the depth at which those lie."""
    root = trace(denoiser)
    calls = by_name(root)
    fine = connect(root, [call for call in root.walk() if not call.inside])
    assert fine.names == tuple(name for name, call in calls.items() if not call.inside)
    coarse = connect(root, choose_units(root, grain))
    for name, read in zip(coarse.names, coarse.reads, strict=True):
        inside = {each.name for each in calls[name].walk()}
        by_parts = {
            source
            for part, sources in zip(fine.names, fine.reads, strict=True)
            if part in inside
            for source in sources
            if source[0] not in inside
        }
        assert by_parts <= leaves(calls, read), "nothing that a part reads is missed"
        assert leaves(calls, read) == leaves(calls, calls[name].reads), "nothing is made up"
        assert {source for source, _ in read} <= set(coarse.names)
    assert leaves(calls, coarse.result) == fine.result
