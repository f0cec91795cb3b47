"""The clock tells runs and steps from the scheduler's own calls."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler

from aerogel.parallel.clock import Clock, is_followed
from aerogel.parallel.trace import distinct_tensors

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


class Noted:
    """Be a watch that notes what it is told."""

    def __init__(self) -> None:
        self.begun, self.agreed = 0, []

    def begin(self) -> None:
        self.begun += 1

    def agree(self, values: Any) -> None:
        self.agreed.append(len(distinct_tensors(values)))


def test_a_watch_is_told_of_images_and_samples() -> None:
    scheduler, noted = DDIMScheduler(), Noted()
    Clock(scheduler, noted)
    scheduler.set_timesteps(3)
    advance(scheduler, 2)
    # The first sample, then what each step returns: two tensors of this scheduler.
    assert (noted.begun, noted.agreed) == (1, [1, 2, 2])


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_of_the_scheduler_is_a_plain_one(copies: Any) -> None:
    scheduler = HeunDiscreteScheduler()
    clock = Clock(scheduler)
    scheduler.set_timesteps(4)
    advance(scheduler, 1)
    copied = copies(scheduler)
    assert type(copied) is HeunDiscreteScheduler
    assert copied.step.__self__ is copied
    advance(copied, 1)
    assert (clock.step, scheduler.step_index, copied.step_index) == (1, 1, 2)
    copied.set_timesteps(2)
    assert (clock.run, len(scheduler.timesteps), len(copied.timesteps)) == (1, 7, 3)
    clock.remove()
    copied.set_timesteps(3)
    assert len(copied.timesteps) == 5


def test_a_scheduler_without_a_begin_is_followed_from_its_first_step() -> None:
    scheduler = DDIMScheduler()
    clock = Clock(scheduler)
    for first in (6, 4):
        scheduler.set_timesteps(10)
        sample = torch.ones(1, 1, 4, 4)
        for time in scheduler.timesteps[first:][:2]:
            sample = scheduler.step(0.1 * sample, int(time), sample).prev_sample
        assert clock.steps == 10 - first
        assert clock.time(2) == float(scheduler.timesteps[first + 2])


def test_a_scheduler_in_place_of_another_is_another_image() -> None:
    first, second = DDIMScheduler(), DDIMScheduler()
    used = [first]
    clock = Clock(first, current=lambda: used[0])
    first.set_timesteps(4)
    advance(first, 2)
    clock.refresh()
    assert (clock.run, clock.step) == (1, 2)
    second.set_timesteps(5)
    used[0] = second
    clock.refresh()
    assert (clock.run, clock.step, clock.steps) == (2, 0, 5)
    assert is_followed(second)
    assert not is_followed(first)
    clock.remove()
    assert not is_followed(second)


def test_methods_of_the_users_own_come_back() -> None:
    scheduler = DDIMScheduler()
    own = scheduler.step = functools.partial(DDIMScheduler.step, scheduler)
    clock = Clock(scheduler)
    scheduler.set_timesteps(4)
    advance(scheduler, 1)
    del scheduler.set_timesteps
    clock.remove()
    assert vars(scheduler)["step"] is own
    assert clock.step == 1
