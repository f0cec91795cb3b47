"""Processes that share a training take the steps that one takes, and one of them saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aerogel.condense import fit as fit_module
from aerogel.condense.fit import fit, share_loss
from aerogel.core.crew import Crew
from tests.unit.condense.test_fit import CONFIG, POPULATION, build, loss_of


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_of_a_loss_add_up_to_the_whole(size: int) -> None:
    weights = torch.randn(POPULATION, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def mean_loss(epoch: int, samples: np.ndarray) -> Tensor:
        return (weights[torch.from_numpy(samples)] ** 2).mean() * (epoch + 1)

    samples = np.array([4, 1, 9, 7, 2])
    whole = mean_loss(2, samples)
    parts = [share_loss(mean_loss, Crew(size, rank))(2, samples) for rank in range(size)]
    assert torch.allclose(torch.stack(parts).sum(), whole)
    torch.stack([part for part in parts if part.requires_grad]).sum().backward()
    found = weights.grad
    weights.grad = None
    whole.backward()
    assert found is not None and torch.allclose(found, weights.grad)


class Beside(Crew):
    """A process beside one that sends what this one sends, and 2 more in every number."""

    def add(self, values: Tensor) -> Tensor:
        """Return the sum of both."""
        return values + (values + 2.0)

    def gather(self, items: Any) -> list[Any]:
        """Return what both say, which is the same."""
        return [*items, *items]


def test_batch_statistics_are_averaged_over_processes_where_they_are_gathered() -> None:
    trained, frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).requires_grad_(False)
    fit_module._average_statistics_(nn.Sequential(trained, frozen), Beside(2, 1))
    assert torch.equal(trained.running_mean, torch.ones(3))
    assert torch.equal(trained.running_var, torch.full((3,), 2.0))
    assert torch.equal(frozen.running_mean, torch.zeros(3))


def test_the_first_process_alone_saves(tmp_path: Path) -> None:
    for rank in (1, 0):
        module = build()
        run = fit(
            module,
            loss_of(module),
            config=replace(CONFIG, epochs=1),
            population=POPULATION,
            seed=0,
            device="cpu",
            checkpoint=tmp_path / str(rank),
            crew=Beside(2, rank),
        )
        assert len(list(run)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
