"""Ranks on real kinds of denoisers; benchmarks/parallel-exact runs all of them at all settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist

from aerogel.parallel.exchange import Exchange
from aerogel.parallel.layout import Layout
from tests.dist import exact
from tests.dist.exact import (
    STEPS,
    Setting,
    Trail,
    find_faults,
    lay_out_case,
    plan_bytes,
    run_on_rank,
    sample_in_turn,
    simulate,
)
from tests.dist.group import run_group

NAMES = ("unet-text", "sd3", "unet-motion")


def plan_work(settings: Sequence[Setting]) -> list[tuple[Setting, Layout]]:
    return [(setting, lay_out_case(setting.case, setting.components)) for setting in settings]


def faults_of(
    work: Sequence[tuple[Setting, Layout]], ranks: Sequence[Sequence[Trail]]
) -> dict[str, list[str]]:
    found = {}
    for (setting, layout), *trails in zip(work, *ranks, strict=True):
        faults = find_faults(setting, layout, trails)
        if faults:
            found[str(setting)] = faults
    return found


def run_sabotaged(work: Sequence[tuple[Setting, Layout]]) -> list[Trail]:
    """Change one value of one tensor that rank 1 receives in each run, in the round after the warm-up."""
    receive = Exchange.receive
    spoiled: set[Exchange] = set()

    def receive_spoiled(exchange: Exchange, source: Any, *, fresh: bool) -> torch.Tensor:
        tensor = receive(exchange, source, fresh=fresh).clone()
        if dist.get_rank() == 1 and not fresh and exchange not in spoiled:
            spoiled.add(exchange)
            tensor[(0,) * tensor.ndim] += 0.001
        return tensor

    with patch.object(Exchange, "receive", receive_spoiled):
        return run_on_rank(work)


def run_twice(work: Sequence[tuple[Setting, Layout]]) -> tuple[list[Trail], list[Trail]]:
    """Return the trails of sound runs and of sabotaged ones: starting processes takes longer than both."""
    return run_on_rank(work), run_sabotaged([each for each in work if each[0].warmup == 3])


def test_two_ranks_are_exact_on_denoisers_and_one_changed_value_on_its_way_is_found() -> None:
    work = plan_work([Setting(name, 2, 1, warmup) for name in NAMES for warmup in (1, 3, STEPS)])
    sound, sabotaged = zip(*run_group(2, run_twice, work), strict=True)
    assert faults_of(work, sound) == {}
    faults = faults_of([each for each in work if each[0].warmup == 3], sabotaged)
    assert len(faults) == len(NAMES)
    for found in faults.values():
        assert len(found) == 2
        for rank, fault in enumerate(found):
            assert fault.startswith(f"rank {rank} differs from the simulator from step ")


def test_three_ranks_are_exact_on_denoisers() -> None:
    settings = [Setting(name, 2, 2, warmup) for name in NAMES for warmup in (1, 3, STEPS)]
    # A model that changes what it is given, which the round after the warm-up reads again.
    work = plan_work([*settings, Setting("unet-freeu", 3, 1, 1)])
    assert faults_of(work, run_group(3, run_on_rank, work)) == {}


@pytest.fixture(scope="module")
def sound() -> tuple[Setting, Layout, list[Trail]]:
    """Return a run on two ranks in which everything is as it has to be."""
    ((setting, layout),) = plan_work([Setting("dit", 2, 1, 3)])
    latents, planned = simulate(setting, layout).numpy(), plan_bytes(setting, layout)
    return setting, layout, [Trail(latents, each, each) for each in planned]


def test_a_sound_run_has_no_faults(sound: tuple[Setting, Layout, list[Trail]]) -> None:
    assert find_faults(*sound) == []


def test_one_bit_on_one_rank_is_found(sound: tuple[Setting, Layout, list[Trail]]) -> None:
    setting, layout, trails = sound
    changed = trails[1].latents.copy()
    changed[-1].view(np.int32).flat[0] ^= 1
    faults = find_faults(setting, layout, [trails[0], replace(trails[1], latents=changed)])
    assert faults == [
        f"rank 1 differs from the simulator from step {STEPS - 1} on",
        "rank 1 and rank 0 have different latents",
    ]


@pytest.mark.parametrize("name", ["sent_bytes", "counted_bytes"])
def test_one_byte_is_found(name: str, sound: tuple[Setting, Layout, list[Trail]]) -> None:
    setting, layout, trails = sound
    more = replace(trails[0], **{name: getattr(trails[0], name) + 1})
    (fault,) = find_faults(setting, layout, [more, trails[1]])
    assert fault.startswith(name)


def test_a_warm_up_to_the_end_that_is_not_sequential_is_found(
    sound: tuple[Setting, Layout, list[Trail]],
) -> None:
    setting, layout, trails = sound
    faults = find_faults(replace(setting, warmup=STEPS), layout, trails)
    assert "ranks differ from sequential sampling" in faults


def test_parallel_rounds_that_change_nothing_are_found(sound: tuple[Setting, Layout, list[Trail]]) -> None:
    setting, layout, trails = sound
    with patch.object(exact, "simulate", lambda setting, layout: sample_in_turn(setting.case)):
        faults = find_faults(setting, layout, trails)
    assert "asynchronous rounds change nothing, so this run shows nothing" in faults
