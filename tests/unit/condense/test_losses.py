"""Each loss is its formula, written out number by number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from aerogel.condense.config import StudentConfig, ViewConfig
from aerogel.condense.labels import Batch, make_batch
from aerogel.condense.losses import (
    choose_loss,
    match_direction,
    match_logits,
    match_probabilities,
    refine_labels,
    write_loss,
)
from aerogel.condense.views import Views
from tests.unit.condense import tiny

IMAGES = tiny.draw(2)
VIEWS = Views(ViewConfig(cutmix=1.0), 3, len(IMAGES))
BATCH: Batch = make_batch(IMAGES.images, IMAGES.labels, VIEWS, 0, np.arange(5), "cpu")
GENERATOR = torch.Generator().manual_seed(0)
LOGITS, SOFT = torch.randn(2, 5, 3, generator=GENERATOR)


def softmax(row: list[float], temperature: float) -> list[float]:
    parts = [math.exp(value / temperature) for value in row]
    return [part / sum(parts) for part in parts]


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_its_sum(temperature: float) -> None:
    total = 0.0
    for own, soft in zip(LOGITS.tolist(), SOFT.tolist(), strict=True):
        p, q = softmax(soft, temperature), softmax(own, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    plain = match_probabilities(LOGITS, SOFT, BATCH, temperature=temperature, rescale=False)
    assert float(plain) == pytest.approx(total / 5, rel=1e-5)
    scaled = match_probabilities(LOGITS, SOFT, BATCH, temperature=temperature, rescale=True)
    assert float(scaled) == pytest.approx(temperature**2 * total / 5, rel=1e-5)
    assert float(match_probabilities(SOFT, SOFT, BATCH, temperature=2.0, rescale=True)) == pytest.approx(0.0)


def test_the_angle_is_to_the_refined_label() -> None:
    total = 0.0
    refined = refine_labels(SOFT, BATCH, 2.0).tolist()
    for index, (own, soft) in enumerate(zip(LOGITS.tolist(), SOFT.tolist(), strict=True)):
        share = float(BATCH.weights[index])
        hard = [0.1 / 3] * 3
        hard[int(BATCH.labels[index])] += 0.9 * share
        hard[int(BATCH.partner_labels[index])] += 0.9 * (1 - share)
        softened = unit(softmax(soft, 2.0))
        target = [0.1 * a + 0.9 * b for a, b in zip(unit(hard), softened, strict=True)]
        assert refined[index] == pytest.approx(target, rel=1e-5)
        total += 1 - sum(a * b for a, b in zip(unit(own), unit(target), strict=True))
    assert float(match_direction(LOGITS, SOFT, BATCH, temperature=2.0)) == pytest.approx(total / 5, rel=1e-4)
    scaled = match_direction(7.0 * LOGITS, SOFT, BATCH, temperature=2.0)
    assert float(scaled) == pytest.approx(total / 5, rel=1e-4), "length does not count"


def test_settings_choose_the_loss() -> None:
    def value(config: StudentConfig) -> Tensor:
        return choose_loss(config)(LOGITS, SOFT, BATCH)

    assert torch.equal(value(StudentConfig()), match_logits(LOGITS, SOFT, BATCH))
    kl = StudentConfig(loss="kl", temperature=3.0)
    assert torch.equal(value(kl), match_probabilities(LOGITS, SOFT, BATCH, temperature=3.0, rescale=False))
    assert torch.equal(
        value(replace(kl, rescale_temperature=True)),
        match_probabilities(LOGITS, SOFT, BATCH, temperature=3.0, rescale=True),
    )
    cosine = StudentConfig(loss="cosine", temperature=3.0)
    assert torch.equal(value(cosine), match_direction(LOGITS, SOFT, BATCH, temperature=3.0))


def test_each_loss_is_written_out() -> None:
    assert write_loss(StudentConfig()) == "mse(logits) + ce_weight * cross-entropy"
    assert "kl(" in write_loss(StudentConfig(loss="kl")) and "T = 4" in write_loss(StudentConfig(loss="kl"))
    assert write_loss(StudentConfig(loss="kl", rescale_temperature=True)).startswith("T^2 kl(")
    assert "cosine" in write_loss(StudentConfig(loss="cosine"))
