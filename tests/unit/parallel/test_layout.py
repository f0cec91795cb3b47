"""Layouts are balanced at some depth, as coarse as they can be, and no worse than those of any one depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aerogel.errors import ConfigError
from aerogel.parallel.flow import choose_units, connect
from aerogel.parallel.layout import Layout, join, lay_out
from aerogel.parallel.partition import count_traffic, divide, require_legal, weigh
from aerogel.parallel.trace import Call
from tests.unit.parallel.tiny import ROWS, WIDTH, Net, by_name, linear, rows, stage, trace, trace_unet

TENSOR = 4 * ROWS * WIDTH
STAGES = st.lists(st.integers(2, 4), min_size=2, max_size=4)


def owned(layout: Layout) -> dict[str, int]:
    return dict(zip(layout.flow.names, layout.partition.owners, strict=True))


def chain(count: int) -> Call:
    return trace(nn.Sequential(*(linear() for _ in range(count))))


def test_a_whole_stage_on_one_device_is_one_unit() -> None:
    found = lay_out(trace_unet(3, 3), 2)
    assert owned(found) == {"s0": 0, "s1": 1, "head": 1}
    assert found.partition.loads == pytest.approx((0.5, 0.5))
    assert found.partition.traffic_bytes == TENSOR
    assert not found.partition.folded


def test_a_stage_is_opened_where_a_cut_goes_through_it() -> None:
    found = lay_out(trace_unet(2, 4, 2), 2, fold=False)
    assert owned(found) == {"s0": 0, "s1.0": 0, "s1.1": 0, "s1.2": 1, "s1.3": 1, "s2": 1, "head": 1}
    assert found.partition.traffic_bytes == 2 * TENSOR, "the skip and what s1.2 reads"


def test_a_block_is_opened_where_a_cut_goes_through_it() -> None:
    found = lay_out(trace_unet(2, 3), 2, fold=False)
    expected = {"s0": 0, "s1.0.first": 0, "s1.0.second": 1, "s1.1": 1, "s1.2": 1, "head": 1}
    assert owned(found) == expected
    assert found.partition.balance == pytest.approx(1.0)


def test_a_fold_leaves_the_middle_to_the_others() -> None:
    found = lay_out(trace_unet(2, 4, 2), 2, fold=True)
    assert owned(found) == {"s0": 0, "s1": 1, "s2": 0, "head": 0}
    assert found.partition.folded
    assert found.partition.traffic_bytes == 2 * TENSOR


def skipping() -> Net:
    """Return five stages of one layer; the last reads the wide second half of what the second gave, too."""
    wide = nn.Linear(WIDTH, 5 * WIDTH, bias=False)

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        narrow, skip = self.b(self.a(x)).split((WIDTH, 4 * WIDTH), -1)
        hidden = self.d(self.c(narrow))
        return self.e(hidden + skip.view(-1, 4, WIDTH).sum(1))  # type: ignore[no-any-return]

    return Net(forward, a=linear(), b=wide, c=linear(), d=linear(), e=linear())


def test_the_last_units_go_where_what_they_read_is_made() -> None:
    root, times = trace(skipping()), dict(zip("abcde", [3.0, 2.5, 1.5, 1.5, 0.5], strict=True))
    found = lay_out(root, 3, times=times)
    assert found.partition.owners == (0, 1, 2, 2, 1)
    assert (found.partition.folded, found.partition.tail) == (True, 1)
    assert found.partition.balance == pytest.approx(1.0)
    for fold in (False, True):
        assert 1 not in lay_out(root, 3, times=times, fold=fold).partition.owners[-1:]


def test_one_device_gets_everything_whole() -> None:
    found = lay_out(trace_unet(2, 1, 2), 1)
    assert owned(found) == {"s0": 0, "s1": 0, "s2": 0, "head": 0}
    assert (found.partition.balance, found.partition.traffic_bytes) == (pytest.approx(1.0), 0)


@pytest.mark.parametrize(
    ("blocks", "components", "balance"),
    [
        ((2, 2, 2), 2, 1.0),
        ((2, 2, 2), 3, 1.0),
        ((2, 2, 2), 4, 1.0),
        ((4, 2, 4), 2, 1.0),
        ((4, 2, 4), 3, 7 * 3 / 20),
        ((4, 2, 4), 4, 1.0),
        ((2, 3), 2, 1.0),
        ((2, 3), 3, 4 * 3 / 10),
        ((2, 3), 4, 3 * 4 / 10),
    ],
)
@pytest.mark.parametrize("fold", [None, False])
def test_loads_are_as_equal_as_layers_can_make_them(
    blocks: tuple[int, ...], components: int, balance: float, fold: bool | None
) -> None:
    """A block is two equal layers."""
    found = lay_out(trace_unet(*blocks), components, fold=fold).partition
    assert found.balance <= max(1.03, balance + 1e-6)
    assert sum(found.loads) == pytest.approx(1.0)
    assert max(found.loads) * components == pytest.approx(found.balance)


def test_within_the_tolerance_the_least_traffic_is_taken() -> None:
    """Of 256, 16, 16 and 224 a row: balanced behind the first, narrow behind the second."""
    widths = [16, 16, 1, 16, 14]
    layers = [nn.Linear(*pair, bias=False) for pair in pairwise(widths)]
    root = trace(nn.Sequential(*layers))
    strict = lay_out(root, 2, fold=False)
    assert (strict.partition.owners, strict.partition.traffic_bytes) == ((0, 1, 1, 1), 4 * ROWS * 16)
    loose = lay_out(root, 2, fold=False, tolerance=0.1)
    assert (loose.partition.owners, loose.partition.traffic_bytes) == ((0, 0, 1, 1), 4 * ROWS)


def test_cuts_move_to_where_less_travels_between_joined_parts() -> None:
    """Apart, a residual is the sum of all parts before; of whole blocks one tensor is read."""
    layers = [f"{block}.{part}" for block in range(3) for part in ("first", "second")]
    times = dict(zip(layers, [0.5, 0.5, 1.0, 1.0, 1.0, 1.0], strict=True))
    found = lay_out(trace(stage(3)), 2, fold=False, times=times, tolerance=0.25)
    assert owned(found) == {"0": 0, "1": 0, "2": 1}
    assert found.partition.traffic_bytes == TENSOR
    assert found.partition.loads == pytest.approx((0.6, 0.4))


def test_the_least_traffic_is_found_behind_a_hill() -> None:
    """Twenty layers of equal time give 16 values a row, the tenth gives 8 and the twelfth 1."""
    widths = [1 if place == 12 else 8 if place == 10 else 16 for place in range(21)]
    layers = [nn.Linear(*pair, bias=False) for pair in pairwise(widths)]
    times = {str(place): 1.0 for place in range(20)}
    found = lay_out(trace(nn.Sequential(*layers)), 2, fold=False, times=times, tolerance=0.25)
    assert found.partition.owners == (0,) * 12 + (1,) * 8
    assert found.partition.traffic_bytes == 4 * ROWS


def test_only_blocks_beside_cuts_are_opened() -> None:
    """Of 84 blocks, 10.5 are an eighth."""
    found = lay_out(trace(stage(84)), 8, fold=False)
    opened = [name for name in found.flow.names if "." in name]
    assert opened == [f"{place}.{part}" for place in (10, 31, 52, 73) for part in ("first", "second")]
    assert len(found.flow.units) == 88
    assert found.partition.balance == pytest.approx(1.0)


def test_measured_times_override_multiply_accumulates() -> None:
    root = chain(4)
    assert lay_out(root, 2).partition.owners == (0, 0, 1, 1)
    found = lay_out(root, 2, times={"0": 3.0, "1": 1.0, "2": 1.0, "3": 1.0, "unknown": 9.0}, fold=False)
    assert found.partition.owners == (0, 1, 1, 1)
    assert found.partition.loads == pytest.approx((0.5, 0.5))


def test_what_was_not_measured_is_taken_at_the_measured_rate() -> None:
    found = lay_out(chain(4), 2, times={"0": 0.002, "1": 0.001}, fold=False)
    assert found.partition.owners == (0, 0, 1, 1)
    assert found.partition.loads == pytest.approx((0.5, 0.5)), "0.003 s and twice 0.0015 s"


def test_a_unit_without_multiply_accumulates_costs_what_was_measured() -> None:
    denoiser = Net(
        lambda self, x: self.norm(self.b(self.a(x))), a=linear(), b=linear(), norm=nn.LayerNorm(WIDTH)
    )
    root = trace(denoiser)
    assert lay_out(root, 2, fold=False).partition.owners == (0, 1, 1)
    found = lay_out(root, 2, times={"a": 1.0, "b": 1.0, "norm": 2.0}, fold=False)
    assert found.partition.owners == (0, 0, 1)


def test_faster_devices_get_more() -> None:
    found = lay_out(trace_unet(2, 2, 2), 2, fold=False, speeds=[1.0, 2.0])
    assert owned(found) == {"s0": 0, "s1": 1, "s2": 1, "head": 1}
    assert found.partition.loads == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize("components", [10, 100, 0, -1])
def test_more_components_than_parts_are_refused(components: int) -> None:
    """Four blocks of two layers, and the head."""
    root = trace_unet(2, 2)
    assert len(lay_out(root, 9).flow.units) == 9
    said = rf"expected 1 to \d components, the .* of this denoiser; got {components}; what to do: use"
    with pytest.raises(ConfigError, match=said):
        lay_out(root, components)


def test_a_refusal_says_how_many_parts_there_are() -> None:
    with pytest.raises(ConfigError, match=r"expected 1 to 9 components, the parts of this denoiser; got 10;"):
        lay_out(trace_unet(2, 2), 10)


@pytest.mark.parametrize("speeds", [[1.0], [], [1.0, 0.0], [1.0, -2.0]])
def test_speeds_that_do_not_fit_are_refused(speeds: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected 2 speeds above 0"):
        lay_out(trace_unet(2, 2), 2, speeds=speeds)


def test_stages_of_one_block_are_opened_as_the_block_is() -> None:
    found = lay_out(trace_unet(1, 1, 1), 2, fold=False)
    assert found.partition.balance == pytest.approx(1.0)


def test_a_denoiser_behind_a_wrapper_is_laid_out_as_itself() -> None:
    outer = Net(lambda self, x: self.model(x), model=Net(lambda self, x: self.model(x), model=stage(4)))
    found = lay_out(trace(outer), 2)
    assert found.partition.owners == (0, 0, 1, 1)


@pytest.mark.parametrize("stages", [1, 4])
def test_many_light_layers_in_a_row_are_units(stages: int) -> None:
    """Each of them is less than what may be left to every device, but not all of them together."""
    each = [nn.Sequential(*(linear() for _ in range(240 // stages))) for _ in range(stages)]
    root = trace(each[0] if stages == 1 else nn.Sequential(*each))
    found = lay_out(root, 2)
    assert found.partition.balance <= 1.03
    assert sum(unit.macs for unit in found.flow.units) >= 0.95 * root.macs


def rank(layout: Layout, tolerance: float) -> tuple[bool, float, float]:
    partition = layout.partition
    poor = partition.balance > 1.0 + tolerance
    both = partition.traffic_bytes, partition.balance
    return (poor, *(both[::-1] if poor else both))


@settings(max_examples=15)
@given(STAGES, st.integers(2, 4), st.sampled_from([None, False, True]), st.sampled_from([0.0, 0.03, 0.15]))
def test_no_single_depth_is_better(
    blocks: list[int], components: int, fold: bool | None, tolerance: float
) -> None:
    root = trace_unet(*blocks)
    best = rank(lay_out(root, components, fold=fold, tolerance=tolerance), tolerance)
    for grain in (0.5 / components, 0.1, 0.05, 0.025, 0.0125, 0.0):
        flow = connect(root, choose_units(root, grain))
        if len(flow.units) >= components:
            costs = [float(unit.macs) for unit in flow.units]
            partition = divide(flow, costs, components, fold=fold, slack=tolerance)
            assert best <= rank(join(root, flow, partition), tolerance)


@settings(max_examples=20)
@given(STAGES, st.integers(1, 4), st.sampled_from([None, False, True]), st.data())
def test_a_layout_is_legal_and_as_coarse_as_can_be(
    blocks: list[int], components: int, fold: bool | None, data: st.DataObject
) -> None:
    root = trace_unet(*blocks)
    calls = by_name(root)
    timed = data.draw(st.lists(st.sampled_from([name for name in calls if name]), unique=True))
    times = {name: data.draw(st.floats(0.001, 1.0)) for name in timed}
    speeds = data.draw(st.none() | st.lists(st.floats(0.5, 2.0), min_size=components, max_size=components))
    found = lay_out(root, components, fold=fold, times=times, speeds=speeds)
    owners = found.partition.owners
    require_legal(found.flow, owners)
    assert set(owners) == set(range(components))
    assert found.partition.traffic_bytes == count_traffic(found.flow, owners)
    assert found.flow == connect(root, [calls[name] for name in found.flow.names])
    assert found.flow.macs == root.macs
    owner_of = owned(found)
    for name, call in calls.items():
        inside = {owner_of[each.name] for each in call.walk()[1:] if each.name in owner_of}
        assert not name or len(inside) != 1, "what has one owner is one unit"
        assert not inside or name not in owner_of


def flat(names: Sequence[str], root: Call) -> list[str]:
    """Return the layers inside the calls of these names."""
    calls = by_name(root)
    return [each.name for name in names for each in calls[name].walk() if not each.inside]


def test_joining_changes_nobodys_share() -> None:
    root = trace_unet(2, 2, 2)
    flow = connect(root, choose_units(root, 0.0))
    costs = [float(unit.macs) for unit in flow.units]
    partition = weigh(flow, (0,) * 4 + (1,) * 5 + (2,) * 4, costs, [1.0] * 3)
    found = join(root, flow, partition)
    assert owned(found) == {
        "s0": 0,
        "s1": 1,
        "s2.0.first": 1,
        "s2.0.second": 2,
        "s2.1": 2,
        "head": 2,
    }
    assert flat(found.flow.names, root) == list(flow.names)
    assert found.partition.loads == partition.loads
    assert found.partition.balance == partition.balance
    assert found.partition.traffic_bytes == count_traffic(found.flow, found.partition.owners)


def test_a_block_of_two_results_keeps_both() -> None:
    split = Net(lambda self, x: (self.l(x), self.r(x)), l=linear(), r=linear())
    denoiser = Net(lambda self, x: self.b(torch.cat(self.a(x), -1)), a=split, b=nn.Linear(2 * WIDTH, WIDTH))
    found = lay_out(trace(denoiser, rows()), 2)
    assert owned(found) == {"a": 0, "b": 1}
    assert found.partition.traffic_bytes == 2 * TENSOR
