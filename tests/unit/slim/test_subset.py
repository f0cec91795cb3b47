"""Channels are ordered by what those before them cannot say."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.errors import DataError
from aerogel.slim import subset as module
from aerogel.slim.subset import Spread, order_channels, score_mlps, weigh_shares
from tests.unit.slim.test_moments import hooks, one_by_one
from tests.unit.slim.tiny import build

SIZE = 9


def draw(seed: int = 0, count: int = 400) -> Tensor:
    """Return correlated states [count, 9]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    return torch.randn(count, SIZE, generator=generator, dtype=torch.float64) @ mixing + 5.0


def layer(seed: int = 1) -> Tensor:
    return torch.randn(4, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unsaid(states: Tensor, weight: Tensor, chosen: list[int]) -> float:
    """Return the share of the outputs' variance that least squares leaves, from the chosen channels."""
    centred = states - states.mean(0)
    outputs = centred @ weight.T
    solved = torch.linalg.lstsq(centred[:, chosen], outputs).solution
    return float((outputs - centred[:, chosen] @ solved).square().sum() / outputs.square().sum())


def covariance(states: Tensor) -> Tensor:
    return torch.cov(states.T, correction=0)


def test_scores_are_what_was_left_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RIDGE", 1e-9)
    states, weight = draw(), layer()
    scores = order_channels(covariance(states), weight)
    order = scores.argsort(descending=True).tolist()
    assert scores[order[0]] == 1.0
    # Four outputs leave nothing to say once all directions that they see are there.
    for count in range(1, SIZE - 1):
        assert float(scores[order[count]]) == pytest.approx(unsaid(states, weight, order[:count]), abs=1e-6)


def test_each_channel_is_the_best_to_come_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RIDGE", 1e-9)
    states, weight = draw(3), layer(4)
    order = order_channels(covariance(states), weight).argsort(descending=True).tolist()
    for count in range(4):
        others = {each: unsaid(states, weight, [*order[:count], each]) for each in range(SIZE)}
        best = min((each for each in others if each not in order[:count]), key=lambda each: others[each])
        assert best == order[count]
    # And the whole subset is near to the best there is.
    best_pair = min(unsaid(states, weight, list(pair)) for pair in combinations(range(SIZE), 2))
    assert unsaid(states, weight, order[:2]) < 1.5 * best_pair


def test_copies_of_what_is_chosen_come_last() -> None:
    states = draw()
    # Channel 8 repeats channel 0, larger; 7 never changes.
    states[:, 8], states[:, 7] = 3 * states[:, 0] - 1.0, 2.0
    scores = order_channels(covariance(states), layer())
    order = scores.argsort(descending=True).tolist()
    assert order[-1] == 7 and min(order.index(0), order.index(8)) < 5
    assert max(order.index(0), order.index(8)) == SIZE - 2
    assert bool((scores >= 0).all()) and len(set(scores.tolist())) > SIZE - 3


@pytest.mark.parametrize("most", [1, 3, 20])
def test_an_order_may_end_early(most: int) -> None:
    given = covariance(draw()), layer()
    whole, part = order_channels(*given), order_channels(*given, most)
    first = whole.argsort(descending=True)[:most]
    assert torch.equal(part.argsort(descending=True)[:most], first) and torch.equal(part[first], whole[first])
    assert bool((part >= 0).all()) and len(set(part.tolist())) == SIZE


def test_a_layer_that_makes_nothing_scores_nothing() -> None:
    scores = order_channels(covariance(draw()), torch.zeros(4, SIZE, dtype=torch.float64))
    assert torch.equal(scores, torch.zeros(SIZE, dtype=torch.float64))


def test_spreads_do_not_lose_small_differences_of_large_numbers() -> None:
    parts = [draw(seed).float() + 1e4 for seed in range(3)]
    spread = Spread()
    for part in parts:
        spread.add(part.reshape(2, -1, SIZE))
    wanted = covariance(torch.cat(parts).double())
    assert spread.count == 3
    assert torch.allclose(spread.covariance(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.max()))


def test_the_mlps_of_a_model_are_scored_by_what_they_write() -> None:
    model = build()
    block: Any = model.vision_encoder.layers[1].mlp
    with torch.no_grad():
        # What is written of channel 3 stands alone; channels 20 to 39 repeat 0 to 19.
        for value in (block.lin1.weight, block.lin1.bias):
            value[20:] = value[:20]
        block.lin2.weight[:, 3] *= 50.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = score_mlps(model, one_by_one())
    assert list(found) == [f"blocks.{number}.mlp" for number in range(3)]
    assert all(each.shape == (40,) and each.dtype == torch.float64 for each in found.values())
    scores = found["blocks.1.mlp"]
    assert int(scores.argmax()) in (3, 23)
    others = [index % 20 for index in scores.argsort(descending=True).tolist() if index % 20 != 3]
    assert len(set(others[:16])) == 16, "the second of a pair has next to nothing to add"
    assert hooks(model) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shares_of_a_block_are_worth_what_its_channels_cost() -> None:
    shares = {"a": torch.tensor([1.0, 0.5], dtype=torch.float64), "b": torch.ones(2, dtype=torch.float64)}
    losses = {"b": torch.tensor([0.5, 0.25]), "a": torch.tensor([2.0, 6.0]), "c": torch.ones(3)}
    found = weigh_shares(shares, losses)
    assert {name: each.tolist() for name, each in found.items()} == {"a": [8.0, 4.0], "b": [0.75, 0.75]}


def test_mistakes_are_told() -> None:
    with pytest.raises(DataError, match="at least one image"):
        score_mlps(build(), iter(()))
