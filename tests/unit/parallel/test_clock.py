"""The clock tells runs and steps from the scheduler's own calls."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler

from aerogel.parallel.clock import Clock

# diffusers hands a tensor to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def advance(scheduler: DDIMScheduler | HeunDiscreteScheduler, steps: int) -> None:
    sample = torch.ones(1, 1, 4, 4)
    for time in scheduler.timesteps[:steps]:
        sample = scheduler.step(0.1 * sample, time, sample).prev_sample


def test_runs_and_steps_are_counted() -> None:
    scheduler = DDIMScheduler()
    clock = Clock(scheduler)
    scheduler.set_timesteps(10)
    assert (clock.run, clock.step, clock.steps) == (1, 0, 10)
    advance(scheduler, 3)
    assert (clock.run, clock.step) == (1, 3)
    assert clock.time(3) == float(scheduler.timesteps[3])
    scheduler.set_timesteps(5)
    assert (clock.run, clock.step, clock.steps) == (2, 0, 5)


def test_a_second_order_scheduler_counts_every_call_it_asks_for() -> None:
    scheduler = HeunDiscreteScheduler()
    clock = Clock(scheduler)
    scheduler.set_timesteps(4)
    assert clock.steps == len(scheduler.timesteps) == 7
    advance(scheduler, 7)
    assert clock.step == 7


def test_image_to_image_counts_from_where_it_begins() -> None:
    scheduler = HeunDiscreteScheduler()
    clock = Clock(scheduler)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(13)
    assert clock.steps == len(scheduler.timesteps) - 13
    assert clock.time(0) == float(scheduler.timesteps[13])
    assert clock.time(99) == float(scheduler.timesteps[-1])


def test_the_scheduler_is_left_as_it_was() -> None:
    scheduler = DDIMScheduler()
    before = dict(vars(scheduler))
    clock = Clock(scheduler)
    assert vars(scheduler) != before
    clock.remove()
    assert vars(scheduler) == before
    scheduler.set_timesteps(3)
    assert clock.run == 0


def test_pipelines_read_the_methods_own_signatures() -> None:
    scheduler = DDIMScheduler()
    before = [inspect.signature(each) for each in (scheduler.set_timesteps, scheduler.step)]
    clock = Clock(scheduler)
    assert [inspect.signature(each) for each in (scheduler.set_timesteps, scheduler.step)] == before
    clock.remove()
