from __future__ import annotations

import pytest
import torch
from torch import nn

from aerogel.errors import DataError
from aerogel.measure.parameters import count_parameters


def test_counts_weights_and_biases_but_no_buffers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Linear(6, 7, bias=False))
    measured = count_parameters(model)
    assert measured.value == (3 * 4 * 25 + 4) + (4 + 4) + 6 * 7
    assert measured.unit == "parameters"


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert count_parameters(model).value == 9


def test_frozen_weights_can_be_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    assert count_parameters(model).value == 13
    trainable = count_parameters(model, trainable_only=True)
    assert (trainable.value, trainable.name) == (4, "trainable parameters")


def test_models_without_memory_can_be_counted() -> None:
    with torch.device("meta"):
        model = nn.Linear(1_000_000, 1_000_000)
    assert count_parameters(model).value == 10**12 + 10**6


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"0\.weight"):
        count_parameters(nn.Sequential(nn.LazyLinear(3)))
