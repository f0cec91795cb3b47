"""Ranks that run the same script do the same things, by rank 0's word; and say so where they do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aerogel.errors import ConfigError, DeviceError, RankError
from aerogel.parallel.calls import Calls, Cancelled
from aerogel.parallel.layout import Layout
from aerogel.parallel.lockstep import Lockstep
from aerogel.parallel.rounds import Round
from tests.dist.group import run_group
from tests.unit.parallel.small import Denoiser, divide

CPU = torch.device("cpu")
FIRST, SECOND = Round((0,), fresh=True, body=0), Round((1,), fresh=False, body=1)


class Adder:
    """Answer rounds with what their calls give."""

    def run(self, planned: Round, calls: Calls) -> list[Any]:
        return [calls(step) for step in planned.steps]


class Both:
    """Hold what a rank has: its number, its lockstep, and how often it was interrupted."""

    def __init__(self) -> None:
        self.rank, self.interrupted = dist.get_rank(), 0
        self.lockstep = Lockstep(CPU, self._interrupt)
        self.runner = self.lockstep.keep("unet/0", Adder())

    def _interrupt(self) -> None:
        self.interrupted += 1

    def call(self, planned: Round, value: float) -> list[Any]:
        calls = Calls(lambda x: x.tolist(), {planned.body: ((torch.full((2,), value),), {})})
        return self.runner.run(planned, calls)


@functools.cache
def lay_out(components: int = 2) -> Layout:
    return divide(Denoiser(), components, torch.zeros(2, 8))


def fail() -> Layout:
    raise ConfigError("expected 1 to 4 components; got 9")


def note_error(work: Callable[[], Any], *kinds: type[Exception]) -> str:
    with pytest.raises(kinds) as caught:
        work()
    return f"{type(caught.value).__name__}: {caught.value}"


def agree(both: Both) -> Any:
    """Draw, run and step apart; all is rank 0's."""
    torch.manual_seed(both.rank)
    both.lockstep.begin()
    drawn = torch.rand(2).tolist()
    samples = {"sample": torch.full((3, 2), float(both.rank)).t(), "more": [torch.tensor(both.rank)]}
    both.lockstep.agree(samples)
    answered = both.call(FIRST, 10.0 + both.rank)
    return drawn, samples["sample"].tolist(), samples["more"][0].item(), answered


def divide_alike(both: Both) -> Any:
    """Take rank 0's layout or refusal."""
    taken = both.lockstep.lay_out(lambda: lay_out(2 + both.rank))
    refused = note_error(lambda: both.lockstep.lay_out(fail), ConfigError, DeviceError)
    return taken.partition.owners, refused.partition(": ")[2]


def cancel(both: Both) -> Any:
    """Rank 0 leaves an image after a round, another before a layout, the last before the end."""
    found: list[Any] = []
    both.lockstep.begin()
    both.call(FIRST, 0.0)
    if both.rank > 0:
        found.append(note_error(lambda: both.call(SECOND, 0.0), Cancelled))
        found.append(note_error(lambda: both.call(SECOND, 0.0), Cancelled))
        both.lockstep.agree(torch.ones(3))
    both.lockstep.begin()
    if both.rank > 0:
        found.append(note_error(lambda: both.lockstep.lay_out(lay_out), Cancelled))
    both.lockstep.begin()
    sound = both.call(FIRST, 1.0 + both.rank)
    if both.rank > 0:
        found.append(note_error(lambda: both.call(SECOND, 0.0), Cancelled))
    both.lockstep.end()
    return found, both.interrupted, sound


def part(both: Both) -> Any:
    """Do different things."""
    both.lockstep.begin()
    lockstep, ahead = both.lockstep, both.rank == 0
    doing: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: both.call(FIRST, 0.0), lambda: both.call(SECOND, 0.0)),
        (lambda: both.call(FIRST, 0.0), lockstep.begin),
        (lambda: both.call(FIRST, 0.0), lockstep.end),
        (lambda: lockstep.lay_out(lay_out), lambda: both.call(FIRST, 0.0)),
        (lambda: both.lockstep.begin(), lockstep.end),
    ]
    return [work() and None if ahead else note_error(other, RankError) for work, other in doing]


def take_part() -> list[Any]:
    # A lockstep for each: after an error there is no common word.
    return [work(Both()) for work in (agree, divide_alike, cancel, part)]


@pytest.fixture(scope="module")
def ranks() -> list[list[Any]]:
    """Return what two ranks have."""
    return run_group(2, take_part)


def test_all_is_rank_zeros(ranks: list[list[Any]]) -> None:
    first, second = (rank[0] for rank in ranks)
    assert second == first
    assert first[1:] == ([[0.0] * 3] * 2, 0, [[10.0, 10.0]])


def test_layouts_and_refusals_are_rank_zeros(ranks: list[list[Any]]) -> None:
    for rank in ranks:
        assert rank[1] == (lay_out().partition.owners, "expected 1 to 4 components; got 9")


def test_an_image_that_rank_zero_leaves_is_cancelled(ranks: list[list[Any]]) -> None:
    assert ranks[0][2] == ([], 0, [[1.0, 1.0]])
    assert ranks[1][2] == (["Cancelled: "] * 4, 3, [[1.0, 1.0]])


def test_a_rank_out_of_step_says_what_each_does(ranks: list[list[Any]]) -> None:
    told = ranks[1][3]
    assert ranks[0][3] == [None] * 5
    assert "rank 1 does next (round of step 1: in parallel, at the times of 1 in lane unet/0)" in told[0]
    assert "got round of step 0: warm-up in lane unet/0; what to do: make the same calls" in told[0]
    assert "(the begin of an image)" in told[1]
    assert "(the end of the block)" in told[2]
    assert "got layout of a denoiser for new shapes" in told[3]
    assert "got the begin of an image" in told[4]
