"""Students: stored labels train the very student that the online teacher trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import FitConfig, StudentConfig, ViewConfig
from aerogel.condense.fit import batches
from aerogel.condense.labels import (
    Batch,
    HardLabels,
    LabelSource,
    NetworkLabels,
    StoredLabels,
    make_batch,
)
from aerogel.condense.networks import build_classifier
from aerogel.condense.storing import store_labels
from aerogel.condense.student import (
    TrainingSet,
    build_student,
    choose_rate,
    distillation_loss,
    order_seed,
    score,
    train_student,
    training_batches,
)
from aerogel.condense.views import Views
from aerogel.zoo.imageset import ImageSet

COUNT, SIZE, CLASSES = 19, 8, 3
NAMES = ("a", "b", "c")
RANDOM = np.random.default_rng(0)
PIXELS = torch.from_numpy(RANDOM.integers(0, 256, (COUNT, 1, SIZE, SIZE)).astype(np.uint8))
DATA = TrainingSet(
    PIXELS, torch.arange(COUNT) % CLASSES, Views(ViewConfig(cutmix=0.7), 3, COUNT), NAMES, (0.5,), (0.3,)
)
FIT = FitConfig(epochs=3, batch_size=8, lr=0.01)
CONVNET = StudentConfig(network="convnet", width=4, depth=2, fit=FIT)
RESNET = StudentConfig(network="resnet18", width=4, fit=FIT)


def teacher(name: str) -> NetworkLabels:
    network = build_classifier(
        name, channels=1, classes=CLASSES, size=SIZE, width=4, depth=2, mean=(0.5,), std=(0.3,), seed=77
    )
    return NetworkLabels("teacher", network)


def trained(labels: LabelSource, config: StudentConfig, seed: int = 1) -> dict[str, bytes]:
    student = build_student(DATA, config, seed)
    losses = [each.loss for each in train_student(student, DATA, labels, config, seed=seed)]
    assert len(losses) == FIT.epochs
    return {name: value.numpy().tobytes() for name, value in student.state_dict().items()}


def stored(
    folder: Path, source: LabelSource, config: StudentConfig, codec: str, seed: int = 1
) -> StoredLabels:
    folder.mkdir()
    made = training_batches(DATA, config.fit, seed=seed)
    store_labels(folder, source, made, epochs=FIT.epochs, images=COUNT, classes=CLASSES, codec=codec)
    return StoredLabels(folder, "stored")


# --- labels from the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONVNET, RESNET], ids=["convnet", "resnet18"])
@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_stored_float32_labels_train_the_student_of_the_online_teacher(
    tmp_path: Path, name: str, config: StudentConfig
) -> None:
    assert [len(batch) for batch in batches(order_seed(1), 0, COUNT, FIT.batch_size)] == [8, 8, 3]
    online = teacher(name)
    exact = trained(online, config)
    assert trained(stored(tmp_path / "fp32", online, config, "stored-fp32"), config) == exact
    assert trained(stored(tmp_path / "fp16", online, config, "stored-fp16"), config) != exact
    assert trained(online, config, seed=2) != exact


def test_training_batches_are_those_of_the_training() -> None:
    seen: list[tuple[int, list[int], bytes]] = []

    class Spy:
        name = "spy"

        def logits(self, batch: Batch) -> Tensor | None:
            seen.append(identity(batch))
            return None

    def identity(batch: Batch) -> tuple[int, list[int], bytes]:
        return batch.epoch, batch.parameters.samples.tolist(), batch.views.numpy().tobytes()

    trained(Spy(), CONVNET)
    assert [identity(batch) for batch in training_batches(DATA, FIT, seed=1)] == seen
    later = [identity(batch) for batch in training_batches(DATA, FIT, seed=1, first_epoch=2)]
    assert later == [each for each in seen if each[0] == 2]
    assert len(seen) == 9


def test_a_killed_student_ends_like_a_straight_one(tmp_path: Path) -> None:
    straight = trained(teacher("convnet"), RESNET)

    class Killed(Exception):
        pass

    class Dying:
        name = "teacher"

        def logits(self, batch: Batch) -> Tensor | None:
            if batch.epoch == 2:
                raise Killed
            return teacher("convnet").logits(batch)

    config = replace(RESNET, fit=FIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aerogel.condense.fit._SAVE_EVERY_S", -1.0)
        with pytest.raises(Killed):
            list(
                train_student(
                    build_student(DATA, config, 1), DATA, Dying(), config, seed=1, checkpoint=tmp_path
                )
            )
    again = build_student(DATA, config, 1)
    run = train_student(again, DATA, teacher("convnet"), config, seed=1, checkpoint=tmp_path)
    assert [each.epoch for each in run] == [2]
    assert {name: value.numpy().tobytes() for name, value in again.state_dict().items()} == straight


# --- losses and the average of the weights ------------------------------------------------------------------


def test_every_loss_trains_another_student_and_lowers_itself() -> None:
    configs = [
        CONVNET,
        replace(CONVNET, loss="kl"),
        replace(CONVNET, loss="kl", rescale_temperature=True),
        replace(CONVNET, loss="kl", temperature=1.0),
        replace(CONVNET, loss="cosine"),
        replace(CONVNET, ema=0.5),
    ]
    found = [trained(teacher("convnet"), config) for config in configs]
    assert len({tuple(sorted(each.items())) for each in found}) == len(configs)
    longer = replace(CONVNET, loss="cosine", ce_weight=0.0, fit=replace(FIT, epochs=8))
    student = build_student(DATA, longer, 1)
    losses = [e.loss for e in train_student(student, DATA, teacher("convnet"), longer, seed=1)]
    assert losses[-1] < losses[0]


def test_the_average_is_scored_and_not_the_last_weights() -> None:
    config = replace(RESNET, ema=0.9)
    last = build_student(DATA, RESNET, 1)
    list(train_student(last, DATA, teacher("convnet"), RESNET, seed=1))
    averaged = build_student(DATA, config, 1)
    run = train_student(averaged, DATA, teacher("convnet"), config, seed=1)
    for state in run:
        if state.epoch == FIT.epochs - 1:
            before = {name: value.clone() for name, value in averaged.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in last.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in averaged.state_dict().items())


@pytest.mark.parametrize("ends", [2, 3], ids=["in the middle", "after the last epoch"])
def test_a_killed_average_ends_like_a_straight_one(tmp_path: Path, ends: int) -> None:
    config = replace(RESNET, ema=0.8)
    straight = trained(teacher("convnet"), config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aerogel.condense.fit._SAVE_EVERY_S", -1.0)
        first = build_student(DATA, config, 1)
        run = train_student(first, DATA, teacher("convnet"), config, seed=1, checkpoint=tmp_path)
        for _ in range(ends):
            next(run)
        if ends < FIT.epochs:
            next(run)  # the epoch before is saved once its successor is asked for
        else:
            list(run)
    again = build_student(DATA, config, 1)
    list(train_student(again, DATA, teacher("convnet"), config, seed=1, checkpoint=tmp_path))
    assert {name: value.numpy().tobytes() for name, value in again.state_dict().items()} == straight


# --- the parts ----------------------------------------------------------------------------------------------


def test_the_loss_is_mse_and_a_share_of_cross_entropy() -> None:
    batch = make_batch(DATA.images, DATA.labels, DATA.views, 0, np.arange(6), "cpu")
    generator = torch.Generator().manual_seed(0)
    logits, soft = torch.randn(2, 6, CLASSES, generator=generator)
    target = batch.weights[:, None] * functional.one_hot(batch.labels, CLASSES)
    target = target + (1 - batch.weights)[:, None] * functional.one_hot(batch.partner_labels, CLASSES)
    cross_entropy = -(target * logits.log_softmax(1)).sum(1).mean()
    squares = sum(
        (a - b) ** 2 for a, b in zip(logits.flatten().tolist(), soft.flatten().tolist(), strict=True)
    )
    expected = squares / (6 * CLASSES) + 0.25 * float(cross_entropy)
    assert float(distillation_loss(logits, soft, batch, 0.25)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(logits, None, batch, 0.25)) == pytest.approx(
        float(cross_entropy), rel=1e-5
    )


def test_a_student_starts_from_its_seed_alone() -> None:
    first, same, other = (build_student(DATA, CONVNET, seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["network.features.0.weight"], other["network.features.0.weight"])
    assert first["mean"].flatten().tolist() == pytest.approx([0.5])
    assert first["std"].flatten().tolist() == pytest.approx([0.3])


class Brightness(nn.Module):
    """Give class k to an image of the brightness k / 2."""

    def forward(self, images: Tensor) -> Tensor:
        levels = torch.linspace(0.0, 1.0, CLASSES)
        return -(images.mean((1, 2, 3))[:, None] - levels).abs()


def bright(labels: list[int], levels: list[int]) -> ImageSet:
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).contiguous()
    return ImageSet(
        images, torch.tensor(labels), NAMES, tuple(f"test:{k}" for k in range(len(labels))), "t", "none"
    )


def test_the_score_is_the_share_of_right_answers_in_percent() -> None:
    found = score(Brightness(), bright([0, 1, 2, 0], [3, 120, 250, 255]))
    assert found.value == pytest.approx(75.0)
    assert found.unit == "%"
    assert found.samples == 4


def test_the_rate_is_the_best_on_held_out_images() -> None:
    levels = [0, 128, 255] * 6
    labels = [0, 1, 2] * 6
    held_out = bright(labels, levels)
    data = TrainingSet(
        held_out.images, held_out.labels, Views(ViewConfig(cutmix=0.0), 0, len(levels)), NAMES, (0.5,), (0.4,)
    )
    config = replace(CONVNET, lrs=(1e-9, 0.02), fit=replace(FIT, epochs=12))
    watched: list[str] = []

    def watch(label: str, run: object) -> object:
        watched.append(label)
        return run

    rate, found = choose_rate(data, HardLabels(), config, held_out, seed=0, watch=watch)  # type: ignore[arg-type]
    assert rate == 0.02
    assert found["0.02"] > 90.0 > found["1e-09"]
    assert watched == ["lr 1e-09", "lr 0.02"]


def test_one_rate_is_no_choice() -> None:
    config = replace(CONVNET, lrs=(0.5,))
    assert choose_rate(DATA, HardLabels(), config, bright([0], [0]), seed=0) == (0.5, {})
    plain = replace(CONVNET, lrs=(), fit=replace(FIT, lr=0.25))
    assert choose_rate(DATA, HardLabels(), plain, bright([0], [0]), seed=0) == (0.25, {})
