"""The average is the one of its definition, and its state is the module's."""

from __future__ import annotations

import torch
from torch import nn

from aerogel.condense.averaging import Averaged


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_the_average_is_that_of_its_definition() -> None:
    inner = network()
    averaged = Averaged(inner, 0.5)
    expected = inner[0].weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            inner[0].weight += 1.0
        averaged.update_()
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * inner[0].weight.detach()
    averaged.settle_()
    assert torch.allclose(inner[0].weight, expected)
    assert int(averaged.steps) == 12


def test_statistics_are_averaged_and_counts_copied() -> None:
    inner = network()
    averaged = Averaged(inner, 0.9)
    inner(torch.randn(8, 3) + 5.0)
    moved = inner[1].running_mean.clone()
    averaged.update_()
    averaged.settle_()
    assert torch.allclose(inner[1].running_mean, 0.9 * moved)
    assert int(inner[1].num_batches_tracked) == 1


def test_a_saved_state_goes_on_where_it_was() -> None:
    first, again = Averaged(network(), 0.8), Averaged(network(), 0.8)
    with torch.no_grad():
        first.network[0].bias += 3.0  # type: ignore[index, operator]
    first.update_()
    again.load_state_dict(first.state_dict())
    for each in (first, again):
        each.update_()
        each.settle_()
    assert torch.equal(first.network[0].bias, again.network[0].bias)  # type: ignore[index, arg-type]
    assert int(again.steps) == 2


def test_only_the_network_is_trained() -> None:
    averaged = Averaged(network(), 0.9)
    assert len(list(averaged.parameters())) == len(list(averaged.network.parameters()))
    images = torch.randn(4, 3)
    averaged.eval()
    assert torch.equal(averaged(images), averaged.network(images))
