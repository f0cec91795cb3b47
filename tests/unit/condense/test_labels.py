"""Every source of labels says of a view what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from aerogel.condense.config import ViewConfig
from aerogel.condense.labels import HardLabels, NetworkLabels, OnePerImage
from aerogel.condense.views import Views
from tests.unit.condense.shown import CLASSES, IMAGES, LABELS, PIXELS, SIZE, VIEWS, batch_of, teacher

# --- batches ------------------------------------------------------------------------------------------------


def test_a_batch_says_what_its_views_show() -> None:
    batch = batch_of([3, 0, 7], epoch=2)
    rendered, found = VIEWS.render(PIXELS, 2, np.array([3, 0, 7]))
    assert torch.equal(batch.views, rendered)
    assert batch.epoch == 2
    assert batch.labels.tolist() == LABELS[[3, 0, 7]].tolist()
    assert batch.partner_labels.tolist() == LABELS[found.partners.tolist()].tolist()
    assert torch.equal(batch.weights, found.mixing_weight(SIZE))


@given(st.integers(0, 50))
def test_hard_loss_is_cross_entropy_to_the_mixed_labels(epoch: int) -> None:
    batch = batch_of(list(range(IMAGES)), epoch)
    logits = torch.from_numpy(np.random.default_rng(epoch).normal(size=(IMAGES, CLASSES)).astype(np.float32))
    target = torch.zeros(IMAGES, CLASSES)
    for row in range(IMAGES):
        target[row, batch.labels[row]] += batch.weights[row]
        target[row, batch.partner_labels[row]] += 1.0 - batch.weights[row]
    expected = float(functional.cross_entropy(logits, target))
    assert float(batch.hard_loss(logits)) == pytest.approx(expected, rel=1e-5)


# --- online -------------------------------------------------------------------------------------------------


def test_network_labels_are_of_evaluation_mode_and_float32_without_gradient() -> None:
    network = teacher("resnet18")
    batch = batch_of([0, 1, 2, 3])
    expected = network.eval()(batch.views).detach()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = NetworkLabels("teacher", network).logits(batch)
    assert found is not None
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_hard_labels_are_no_soft_labels() -> None:
    assert HardLabels().logits(batch_of([0])) is None
    assert HardLabels().name == "hard"


# --- one per image ------------------------------------------------------------------------------------------


def one_per_image(path: Path, logits: Tensor) -> OnePerImage:
    save_file({"labels": logits}, path)
    return OnePerImage(path)


def test_one_per_image_mixes_probabilities_by_area(tmp_path: Path) -> None:
    stored = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
    source = one_per_image(tmp_path / "labels.safetensors", stored)
    mixed = 0
    for epoch in range(4):
        batch = batch_of([4, 9, 0, 2, 7], epoch)
        found = source.logits(batch)
        assert found is not None
        assert found.mean(1).tolist() == pytest.approx([0.0] * 5, abs=1e-5)
        own = stored[batch.parameters.samples.tolist()].softmax(1)
        partner = stored[batch.parameters.partners.tolist()].softmax(1)
        for row, weight in enumerate(batch.weights.tolist()):
            expected = weight * own[row] + (1 - weight) * partner[row]
            assert found[row].softmax(0).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
            mixed += weight < 1
    assert mixed > 5


def test_one_per_image_is_the_same_for_every_unmixed_view(tmp_path: Path) -> None:
    stored = torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0))
    source = one_per_image(tmp_path / "labels.safetensors", stored)
    plain = Views(ViewConfig(cutmix=0.0), 3, IMAGES)
    centred = stored - stored.mean(1, keepdim=True)
    for epoch in (0, 1):
        found = source.logits(batch_of([6, 1], epoch, plain))
        assert found is not None
        assert torch.allclose(found, centred[[6, 1]], atol=1e-5)
