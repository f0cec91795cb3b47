"""Processes that exchange the planned tensors give, bit for bit, what the simulator gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from aerogel.parallel.exchange import message_bytes
from aerogel.parallel.layout import Layout
from aerogel.parallel.ranks import Rank
from aerogel.parallel.rounds import plan_rounds
from aerogel.parallel.seating import plan_messages, seat_devices
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.wiring import Wiring
from tests.dist.group import run_group
from tests.unit.parallel.small import Denoiser, Scheduler, divide, own

STEPS = 7
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CASES = [(stride, warmup) for stride in (1, 2) for warmup in (1, 2, STEPS)]


class Transposed(nn.Module):
    """Give the outputs of blocks in a layout that is not the default."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Denoiser(blocks=6)
        for block in self.inner.blocks:
            block.register_forward_hook(lambda module, args, output: output.t().contiguous().t())

    def forward(self, sample: torch.Tensor, timestep: Any) -> Any:
        """Return (estimate [B, width],)."""
        return self.inner(sample, timestep)


def build(kind: str) -> nn.Module:
    return Transposed() if kind == "transposed" else Denoiser(blocks=6)


def sample_with(runner: Any, model: nn.Module, stride: int, warmup: int) -> torch.Tensor:
    scheduler, sample, found = Scheduler(), X, []
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps
    with torch.no_grad():
        for planned in plan_rounds(STEPS, warmup=warmup, stride=stride):
            now = sample
            answers = runner.run(planned, lambda step, now=now: model(now, times[step]))
            for step, (estimate,) in zip(planned.steps, answers, strict=True):
                sample = scheduler.step(estimate, times[step], sample)
                found.append(sample)
    return torch.stack(found)


def on_rank(kind: str, layout: Layout, stride: int) -> dict[int, tuple[torch.Tensor, int]]:
    model = build(kind)
    found = {}
    for warmup in (warmup for each, warmup in CASES if each == stride):
        wiring = Wiring(model)
        rank = Rank(wiring, layout, stride)
        samples = sample_with(rank, model, stride, warmup)
        rank.finish()
        wiring.remove()
        found[warmup] = (samples.numpy(), rank.exchange.sent_bytes)
        dist.barrier()
    return found


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kind", "components"), [("plain", 2), ("plain", 3), ("transposed", 3)])
def test_ranks_equal_the_simulator(kind: str, components: int, stride: int) -> None:
    model = build(kind)
    require_equal(kind, divide(model, components, X), stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_ranks_of_a_fold_onto_the_second_equal_the_simulator(stride: int) -> None:
    require_equal("plain", own(divide(build("plain"), 3, X, fold=False), 0, 1, 1, 2, 2, 1), stride)


def require_equal(kind: str, layout: Layout, stride: int) -> None:
    model = build(kind)
    seating = seat_devices(layout, stride)
    ranks = run_group(seating.devices, on_rank, kind, layout, stride)
    planned = sum(message_bytes(each) for each in plan_messages(layout, seating))
    answer = X.nbytes * (seating.devices - 1)
    for warmup in (warmup for each, warmup in CASES if each == stride):
        wiring = Wiring(model)
        expected = sample_with(Simulator(wiring, layout, stride), model, stride, warmup)
        wiring.remove()
        assert all((found[warmup][0] == expected.numpy()).all() for found in ranks)
        rounds = len(plan_rounds(STEPS, warmup=warmup, stride=stride))
        assert sum(found[warmup][1] for found in ranks) == rounds * planned + STEPS * answer
