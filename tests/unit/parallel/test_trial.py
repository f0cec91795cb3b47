"""A trial holds the parallel pictures against those in turn and those of the simulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aerogel.core.devices import limit_threads
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.sampling import Request, draw
from aerogel.parallel.trial import Speed, measure_speed, verify
from tests.unit.parallel.pictures import build_pipeline

REQUEST = Request(classes=("ape", "bee"), steps=6)


def test_speeds_are_ratios_of_medians() -> None:
    speed = Speed(alone=(4.0, 40.0, 6.0), all_threads=(3.0, 3.0, 9.0), parallel=(2.0, 1.0, 50.0))
    assert speed.over_alone == pytest.approx(3.0)
    assert speed.over_all_threads == pytest.approx(1.5)


def test_two_processes_give_the_simulators_pictures() -> None:
    pipe = build_pipeline()
    with limit_threads(1):
        trial = verify(pipe, lambda: draw(pipe, REQUEST), ParallelConfig(components=2, threads=1))
    assert trial.exact
    assert trial.difference == 0.0
    assert not np.array_equal(trial.parallel, trial.sequential)
    assert np.array_equal(trial.sequential, draw(pipe, REQUEST))
    assert trial.stats.lanes[0].rounds == REQUEST.steps


def test_calls_of_each_kind_are_timed_in_alternation() -> None:
    pipe = build_pipeline()
    seen: list[tuple[bool, int]] = []

    def call() -> None:
        seen.append(("forward" in vars(pipe.unet), torch.get_num_threads()))
        draw(pipe, REQUEST)

    with limit_threads(1):
        speed, run = measure_speed(pipe, call, ParallelConfig(components=2, threads=1), repeats=2)
    assert seen == [(True, 1), (False, 1), (False, 2)] * 3
    assert [len(each) for each in (speed.alone, speed.all_threads, speed.parallel)] == [2, 2, 2]
    assert run.stats.lanes[0].steps == REQUEST.steps
    assert "forward" not in vars(pipe.unet)
