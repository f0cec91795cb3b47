"""Cached labels are the computed ones, bit for bit, and take no more bytes than they may."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aerogel.condense.cache import CachedLabels
from aerogel.condense.config import FitConfig, StudentConfig, ViewConfig
from aerogel.condense.labels import Batch, HardLabels, LabelSource, NetworkLabels, make_batch
from aerogel.condense.networks import Classifier, build_classifier
from aerogel.condense.student import TrainingSet, build_student, train_student
from aerogel.condense.views import Views
from aerogel.errors import ConfigError

IMAGES, SIZE, CLASSES = 9, 8, 3
RANDOM = np.random.default_rng(0)
PIXELS = torch.from_numpy(RANDOM.integers(0, 256, (IMAGES, 1, SIZE, SIZE)).astype(np.uint8))
LABELS = torch.arange(IMAGES) % CLASSES
VIEWS = Views(ViewConfig(cutmix=0.5), 3, IMAGES)
EPOCH_BYTES = IMAGES * (4 * CLASSES + 4)


def teacher() -> nn.Module:
    return build_classifier(
        "convnet", channels=1, classes=CLASSES, size=SIZE, width=4, depth=1, mean=(0.5,), std=(0.2,), seed=5
    )


class Counted:
    """Count the views that a source is asked for."""

    def __init__(self, source: LabelSource) -> None:
        self.source, self.views = source, 0

    @property
    def name(self) -> str:
        return self.source.name

    def logits(self, batch: Batch) -> Tensor | None:
        self.views += len(batch.views)
        return self.source.logits(batch)


def batch_of(samples: list[int], epoch: int = 0) -> Batch:
    return make_batch(PIXELS, LABELS, VIEWS, epoch, np.array(samples), "cpu")


def cache(budget: int, source: LabelSource | None = None) -> tuple[CachedLabels, Counted]:
    counted = Counted(source or NetworkLabels("teacher", teacher()))
    return CachedLabels(counted, images=IMAGES, budget_bytes=budget), counted


def test_a_second_look_gives_the_same_bits_and_computes_nothing() -> None:
    kept, counted = cache(3 * EPOCH_BYTES)
    batches = [batch_of(samples, epoch) for epoch in range(3) for samples in ([4, 0, 8, 2], [1, 3, 5, 6, 7])]
    first = [kept.logits(batch) for batch in batches]
    assert counted.views == 3 * IMAGES and kept.size_bytes == 3 * EPOCH_BYTES
    again = [kept.logits(batch) for batch in batches]
    assert counted.views == 3 * IMAGES
    online = [NetworkLabels("teacher", teacher()).logits(batch) for batch in batches]
    for ours, repeated, theirs in zip(first, again, online, strict=True):
        assert ours is not None and repeated is not None and theirs is not None
        assert ours.numpy().tobytes() == repeated.numpy().tobytes() == theirs.numpy().tobytes()


def test_rows_belong_to_samples_not_to_places_in_a_batch() -> None:
    kept, counted = cache(EPOCH_BYTES)
    whole = kept.logits(batch_of(list(range(IMAGES))))
    mixed = kept.logits(batch_of([7, 2, 5]))
    assert counted.views == IMAGES
    assert whole is not None and mixed is not None and torch.equal(mixed, whole[[7, 2, 5]])


def test_a_batch_with_one_label_missing_is_computed_whole() -> None:
    kept, counted = cache(EPOCH_BYTES)
    kept.logits(batch_of([0, 1, 2]))
    found = kept.logits(batch_of([1, 2, 3]))
    assert counted.views == 6
    theirs = NetworkLabels("teacher", teacher()).logits(batch_of([1, 2, 3]))
    assert found is not None and theirs is not None and torch.equal(found, theirs)


@given(st.integers(0, 3 * EPOCH_BYTES), st.integers(0, 2**16))
def test_the_budget_holds_and_labels_are_right_at_any_budget(budget: int, seed: int) -> None:
    table = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, IMAGES, CLASSES)).astype(np.float32))

    class Table:
        name = "table"

        def logits(self, batch: Batch) -> Tensor | None:
            return table[batch.epoch, torch.from_numpy(batch.parameters.samples)]

    kept, _ = cache(budget, Table())
    order = np.random.default_rng(seed)
    plain = batch_of([0])
    for _ in range(12):
        epoch, samples = int(order.integers(3)), order.permutation(IMAGES)[: order.integers(1, IMAGES)]
        found = Views(ViewConfig(), 3, IMAGES).parameters(epoch, samples, size=SIZE)
        batch = Batch(plain.views, found, epoch, plain.labels, plain.partner_labels, plain.weights)
        labels = kept.logits(batch)
        assert labels is not None and torch.equal(labels, table[epoch, torch.from_numpy(samples)])
        assert kept.size_bytes <= budget


@pytest.mark.parametrize("budget", [0, EPOCH_BYTES + EPOCH_BYTES // 2, 10**6])
def test_a_student_that_goes_round_is_the_same_with_and_without(budget: int) -> None:
    fit = FitConfig(epochs=4, batch_size=4, lr=0.01)
    config = StudentConfig(width=4, depth=1, fit=fit)
    data = TrainingSet(PIXELS, LABELS, VIEWS, ("a", "b", "c"), (0.5,), (0.3,))

    def trained(source: LabelSource) -> Classifier:
        student = build_student(data, config, 1)
        for _ in train_student(student, data, source, config, seed=1, view_epochs=2):
            pass
        return student

    def written(student: Classifier) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in student.state_dict().items()}

    kept, counted = cache(budget)
    ours = trained(kept)
    assert counted.views == {0: 4 * IMAGES, 10**6: 2 * IMAGES}.get(budget, counted.views)
    assert written(ours) == written(trained(kept))
    if budget != 10**6:  # batches of other samples may round otherwise, so only what is never kept is exact
        return
    third, _ = cache(0)
    reference = trained(third)
    # Weights that norms make irrelevant have only rounding for a gradient, so what counts is the function.
    views = batch_of(list(range(IMAGES))).views
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(views), reference.eval()(views), rtol=0, atol=1e-4)


def test_hard_labels_stay_none_and_take_nothing() -> None:
    kept, _ = cache(10**6, HardLabels())
    assert kept.logits(batch_of([0, 1])) is None
    assert kept.size_bytes == 0 and kept.name == "hard"


@pytest.mark.parametrize(("images", "budget"), [(0, 1), (1, -1)])
def test_refuses_no_images_and_a_negative_budget(images: int, budget: int) -> None:
    with pytest.raises(ConfigError, match="budget of 0 bytes or more"):
        CachedLabels(HardLabels(), images=images, budget_bytes=budget)
