"""The simulator runs every device on what the others gave a round ago."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerogel.parallel.layout import Layout
from aerogel.parallel.rounds import Round, plan_rounds
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.wiring import Wiring
from tests.unit.parallel.small import Denoiser, divide, own

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def answer(model: Denoiser, simulator: Simulator, planned: Round, sample: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [out for (out,) in simulator.run(planned, lambda step: model(sample, 900.0 - 100.0 * step))]


def blocks(model: Denoiser, sample: Tensor, step: int, *places: int) -> Tensor:
    with torch.no_grad():
        for place in places:
            sample = model.blocks[place](sample, torch.tensor((900.0 - 100.0 * step) / 1000.0))
    return sample


def test_a_warm_up_round_is_the_denoiser_itself() -> None:
    model = Denoiser()
    simulator = Simulator(Wiring(model), divide(model, 2, X), 1)
    (first,) = answer(model, simulator, Round((0,), fresh=True, body=0), X)
    with torch.no_grad():
        assert torch.equal(first, model(X, 900.0)[0])
    assert model.calls == 2


def test_a_parallel_round_runs_each_device_at_its_own_time() -> None:
    """With a stride of 2 the last component runs at both times, on the same old input."""
    model, later = Denoiser(), X + 0.1
    simulator = Simulator(Wiring(model), divide(model, 2, X), 2)
    warm, parallel = plan_rounds(3, warmup=1, stride=2)
    answer(model, simulator, warm, X)
    first, second = answer(model, simulator, parallel, later)
    old, skip = blocks(model, X, 0, 0, 1), blocks(model, X, 0, 0)
    for step, found in ((1, first), (2, second)):
        assert torch.equal(found, blocks(model, blocks(model, old, step, 2) + skip, step, 3))
    # What the next round will use was computed at the time of the second step.
    third = answer(model, simulator, Round((3,), fresh=False, body=3), X)[0]
    old, skip = blocks(model, later, 2, 0, 1), blocks(model, later, 2, 0)
    assert torch.equal(third, blocks(model, blocks(model, old, 3, 2) + skip, 3, 3))


def test_the_published_stride_repeats_its_first_answer() -> None:
    model = Denoiser()
    simulator = Simulator(Wiring(model), divide(model, 2, X), 2)
    warm, parallel = plan_rounds(3, warmup=1, stride=2, stride2="published")
    answer(model, simulator, warm, X)
    first, second = answer(model, simulator, parallel, X)
    assert torch.equal(first, second)


@pytest.mark.parametrize("components", [2, 3, 4])
def test_poison_where_nothing_is_read_changes_nothing(components: int) -> None:
    model = Denoiser(blocks=6)
    require_unread(model, divide(model, components, X))


def test_a_fold_onto_a_later_component_reads_what_it_says() -> None:
    """The second device runs blocks 1, 2 and 5, the third blocks 3 and 4 between them."""
    model = Denoiser(blocks=6)
    require_unread(model, own(divide(model, 3, X, fold=False), 0, 1, 1, 2, 2, 1))


def require_unread(model: Denoiser, layout: Layout) -> None:
    found = []
    for poisoned in (False, True):
        simulator = Simulator(Wiring(model), layout, 2, poisoned=poisoned)
        sample = X
        for planned in plan_rounds(5, warmup=1, stride=2):
            for each in answer(model, simulator, planned, sample):
                sample = sample - 0.1 * each
        found.append(sample)
    assert torch.equal(*found)
    assert bool(found[1].isfinite().all())


def test_poison_where_something_is_read_spoils_the_result() -> None:
    """A plan that lacks an edge is found out."""
    model = Denoiser()
    simulator = Simulator(Wiring(model), divide(model, 2, X), 1, poisoned=True)
    lacking = tuple(read - {("blocks.0", 0)} for read in simulator.seating.read)
    object.__setattr__(simulator.seating, "read", lacking)
    warm, parallel = plan_rounds(2, warmup=1, stride=1)
    answer(model, simulator, warm, X)
    (found,) = answer(model, simulator, parallel, X)
    assert bool(found.isnan().all())
