"""Rates rise and fall, and are each parameter's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from aerogel.slim.optimiser import learning_rate, make_optimiser
from tests.unit.slim.lessons import CONFIG


def test_rates_warm_up_and_fall() -> None:
    config = replace(CONFIG, warmup=0.2, lr=1.0)
    rates = {
        name: [learning_rate(step, 10, replace(config, schedule=name)) for step in (0, 1, 2, 6, 9)]
        for name in ("constant", "linear", "cosine")
    }
    assert rates["constant"] == [0.5, 1, 1, 1, 1]
    assert rates["linear"] == pytest.approx([0.5, 1, 1, 0.5, 0.125])
    assert rates["cosine"] == pytest.approx([0.5, 1, 1, 0.5, 0.0380602])


@pytest.mark.parametrize("relative", [True, False])
def test_parts_have_rates_of_their_own(relative: bool) -> None:
    trained = {
        "layers.weight": nn.Parameter(torch.tensor([3.0, 4.0])),
        "layers.bias": nn.Parameter(torch.zeros(2)),
        "mask_decoder.weight": nn.Parameter(torch.full((2,), 2.0)),
    }
    config = replace(CONFIG, relative_steps=relative, optimiser="adamw", weight_decay=0.1)
    found = make_optimiser(trained, config, "cpu", {"mask_decoder.": 5.0})
    assert isinstance(found, torch.optim.AdamW)
    sizes = [12.5**0.5, 1e-3, 2.0] if relative else [1.0] * 3
    scales = [group["scale"] for group in found.param_groups]
    assert scales == pytest.approx([sizes[0], sizes[1], 5.0 * sizes[2]])
