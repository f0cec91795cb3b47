"""A session answers calls in rounds, one lane per branch and shape, and begins anew when it must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.parallel.calls import Cancelled
from aerogel.parallel.clock import Clock
from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.rounds import Round
from aerogel.parallel.session import Schedule, Session, is_divided
from aerogel.parallel.simulator import Forward, Simulator
from aerogel.parallel.trace import trace_calls
from aerogel.parallel.wiring import Wiring
from tests.unit.parallel.small import Denoiser, Scheduler, denoise

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Watched(Simulator):
    """Remember the rounds."""

    def __init__(self, wiring: Wiring, layout: Layout, stride: int) -> None:
        super().__init__(wiring, layout, stride)
        self.rounds: list[Round] = []

    def run(self, planned: Round, forward: Forward) -> list[Any]:
        self.rounds.append(planned)
        return super().run(planned, forward)


@contextmanager
def session(model: nn.Module, scheduler: Scheduler, schedule: Schedule, n: int = 2) -> Iterator[Session]:
    clock = Clock(scheduler)
    opened = Session(
        model,
        clock,
        schedule,
        lambda args, kwargs: lay_out(trace_calls(model, args, kwargs), n),
        lambda wiring, layout: Watched(wiring, layout, schedule.stride),
    )
    try:
        yield opened
    finally:
        opened.close()
        clock.remove()


def by_hand(model: Denoiser, steps: int, warmup: int) -> Tensor:
    """Two devices of two blocks each, written out: the second reads what the first gave a step ago."""
    scheduler, sample, found = Scheduler(), X, []
    scheduler.set_timesteps(steps)
    middle, skip = X, X
    with torch.no_grad():
        for step, time in enumerate(scheduler.timesteps):
            first = model.blocks[0](sample, time / 1000.0)
            second = model.blocks[1](first, time / 1000.0)
            if step < warmup:
                middle, skip = second, first
            third = model.blocks[2](middle, time / 1000.0)
            estimate = model.blocks[3](third + skip, time / 1000.0)
            middle, skip = second, first
            sample = sample - 0.1 * estimate
            found.append(sample)
    return torch.stack(found)


@pytest.mark.parametrize("warmup", [1, 2, 4])
def test_parts_use_what_is_one_step_old(warmup: int) -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule(warmup=warmup)) as opened:
        found = denoise(model, scheduler, X)
        assert opened.layouts[0].partition.owners == (0, 0, 1, 1)
    assert torch.equal(found, by_hand(model, 6, warmup))
    assert not torch.equal(found, denoise(model, scheduler, X))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_long_warm_up_changes_nothing(stride: int) -> None:
    model, scheduler = Denoiser(), Scheduler()
    plain = denoise(model, scheduler, X)
    with session(model, scheduler, Schedule(warmup=6, stride=stride)):
        assert torch.equal(denoise(model, scheduler, X), plain)


def test_a_new_image_begins_with_a_warm_up() -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule()) as opened:
        first, second = denoise(model, scheduler, X), denoise(model, scheduler, X)
        other = denoise(model, scheduler, X + 1.0)
        (runner,) = opened.runners
        assert [each.fresh for each in runner.rounds] == 3 * [True, *5 * [False]]  # type: ignore[attr-defined]
    assert torch.equal(first, second)
    with session(model, scheduler, Schedule()):
        assert torch.equal(denoise(model, scheduler, X + 1.0), other)


def test_another_batch_size_has_a_lane_of_its_own() -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule()) as opened:
        denoise(model, scheduler, X)
        one = denoise(model, scheduler, X[:1])
        assert len(opened.layouts) == len(opened.runners) == 2
        again = denoise(model, scheduler, X[:1])
    assert torch.equal(one, again)


def guided(model: Denoiser, scheduler: Scheduler, steps: int = 6) -> Tensor:
    """Call the denoiser twice in every step, with and without the condition."""
    scheduler.set_timesteps(steps)
    sample = X
    with torch.no_grad():
        for time in scheduler.timesteps:
            free, bound = model(sample, time)[0], model(sample + 0.5, time)[0]
            sample = scheduler.step(free + 2.0 * (bound - free), time, sample)
    return sample


@pytest.mark.parametrize("stride", [1, 2])
def test_the_branches_of_a_guided_step_do_not_mix(stride: int) -> None:
    """Both branches as one batch are the same computation, so the results must agree."""

    class Batched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Denoiser()

        def forward(self, sample: Tensor, timestep: Any) -> tuple[Tensor]:
            return self.inner(sample, timestep)

    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule(stride=stride)) as opened:
        found = guided(model, scheduler)
        assert len(opened.runners) == 2

    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule(stride=stride)):
        scheduler.set_timesteps(6)
        sample = X
        with torch.no_grad():
            for time in scheduler.timesteps:
                free, bound = model(torch.cat([sample, sample + 0.5]), time)[0].chunk(2)
                sample = scheduler.step(free + 2.0 * (bound - free), time, sample)
    torch.testing.assert_close(found, sample)


def test_one_round_of_stride_two_answers_two_calls() -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule(stride=2)) as opened:
        denoise(model, scheduler, X, steps=6)
        (runner,) = opened.runners
        steps = [each.steps for each in runner.rounds]  # type: ignore[attr-defined]
        assert steps == [(0,), (1, 2), (3, 4), (5,)]
        assert not opened.untimed


def test_a_step_that_is_left_out_begins_anew() -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule()) as opened, torch.no_grad():
        scheduler.set_timesteps(6)
        sample = X
        for step, time in enumerate(scheduler.timesteps):
            estimate = model(sample, time)[0] if step != 2 else sample
            sample = scheduler.step(estimate, time, sample)
        (runner,) = opened.runners
        fresh = [each.fresh for each in runner.rounds]  # type: ignore[attr-defined]
    assert fresh == [True, False, True, False, False]


def test_everything_is_left_as_it_was() -> None:
    model, scheduler = Denoiser(), Scheduler()
    plain = denoise(model, scheduler, X)
    with session(model, scheduler, Schedule()):
        denoise(model, scheduler, X)
        assert any("forward" in vars(module) for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(denoise(model, scheduler, X), plain)


def test_a_failure_inside_leaves_the_denoiser_usable() -> None:
    model, scheduler = Denoiser(), Scheduler()
    with session(model, scheduler, Schedule()):
        scheduler.set_timesteps(6)
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 7), scheduler.timesteps[0])
        found = denoise(model, scheduler, X)
    with session(model, scheduler, Schedule()):
        assert torch.equal(denoise(model, scheduler, X), found)


class Leaving(Simulator):
    """Be left by the rank that leads at its fourth round."""

    rounds = 0

    def run(self, planned: Round, forward: Forward) -> list[Any]:
        Leaving.rounds += 1
        if Leaving.rounds == 4:
            raise Cancelled
        return super().run(planned, forward)


def test_a_cancelled_image_is_answered_by_the_denoiser_itself() -> None:
    model, scheduler = Denoiser(), Scheduler()
    clock = Clock(scheduler)
    opened = Session(
        model,
        clock,
        Schedule(),
        lambda args, kwargs: lay_out(trace_calls(model, args, kwargs), 2),
        lambda wiring, layout: Leaving(wiring, layout, 1),
    )
    found = denoise(model, scheduler, X)
    opened.close()
    clock.remove()
    time = scheduler.timesteps[3]
    with torch.no_grad():
        assert torch.equal(found[3], scheduler.step(model(found[2], time)[0], time, found[2]))


def test_a_denoiser_that_has_changed_is_divided_anew_with_the_next_image() -> None:
    model, scheduler = Denoiser(), Scheduler()
    forgotten = []
    with session(model, scheduler, Schedule()) as opened:
        opened._forget = lambda: forgotten.append(model.calls)
        denoise(model, scheduler, X)
        before = opened.layouts[0]
        denoise(model, scheduler, X)
        assert opened.layouts[0] is before
        assert not forgotten
        model.blocks[1].linear.weight.data *= 0.5
        model.blocks.insert(2, Denoiser().blocks[0])
        found = denoise(model, scheduler, X)
        assert len(forgotten) == 1
        assert len(opened.layouts[0].flow.names) == len(before.flow.names) + 1
    with session(model, scheduler, Schedule()):
        assert torch.equal(denoise(model, scheduler, X), found)


def test_a_divided_denoiser_is_known() -> None:
    model, scheduler = Denoiser(), Scheduler()
    assert not is_divided(model)
    with session(model, scheduler, Schedule()) as opened:
        assert is_divided(model)
        opened.close()
        assert not is_divided(model)
        opened.reopen()
        assert is_divided(model)
