"""The label generator learns the teacher's labels, resumes to the same weights, and is refused at chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aerogel.condense.config import FitConfig, ProjectorConfig, ViewConfig
from aerogel.condense.fit import EpochState
from aerogel.condense.generator import (
    Lesson,
    measure_fidelity,
    pick_teachers,
    require_above_chance,
    train_generator,
    tune_generator,
)
from aerogel.condense.projector import Fidelity, adapt, build_projector
from aerogel.condense.student import TrainingSet
from aerogel.condense.views import Views
from aerogel.errors import AerogelError, DivergedError, ProjectorError
from aerogel.zoo.imageset import ImageSet
from tests.unit.condense import tiny

DATA = tiny.draw(12)
VIEWS = ViewConfig(crop_scale=(0.9, 1.0), cutmix=0.3)
CONFIG = ProjectorConfig(rank=2, ce_weight=0.0, fit=FitConfig(epochs=4, batch_size=12, lr=0.01))


class Sum(nn.Module):
    """Classify by the brightness of an image, times ``factor``."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 0.0, -1.0]) * self.factor


def adapted() -> nn.Module:
    backbone = tiny.stripes()
    plain = build_projector(backbone, DATA.images, DATA.labels, tiny.NAMES, ())
    return adapt(plain, backbone, CONFIG, 3, seed=2)


def lesson(model: nn.Module, teachers: list[nn.Module], work: Path, config: ProjectorConfig) -> Lesson:
    return Lesson(model, DATA, teachers, config, VIEWS, seed=5, device="cpu", work=work)  # type: ignore[arg-type]


def losses_of(run: Iterator[EpochState], stop: int | None) -> list[float]:
    return [state.loss for state in islice(run, stop)]


def train(
    model: nn.Module,
    teachers: list[nn.Module],
    work: Path,
    config: ProjectorConfig = CONFIG,
    stop: int | None = None,
) -> list[float]:
    return losses_of(train_generator(lesson(model, teachers, work, config)), stop)


def condensed(data: ImageSet = DATA, views: ViewConfig = VIEWS) -> TrainingSet:
    return TrainingSet(
        data.images[::4], data.labels[::4], Views(views, 3, len(data) // 4), tiny.NAMES, (0.5,), (0.5,)
    )


def tune(
    model: nn.Module, teachers: list[nn.Module], work: Path, config: ProjectorConfig, stop: int | None = None
) -> list[float]:
    return losses_of(tune_generator(lesson(model, teachers, work, config), condensed()), stop)


def compare(generator: nn.Module, teacher: nn.Module, data: ImageSet = DATA) -> tuple[Fidelity, ...]:
    return measure_fidelity(generator, teacher, data, condensed(), VIEWS, seed=0, device="cpu")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters() if value.requires_grad])


def test_training_brings_the_labels_to_the_teachers(tmp_path: Path) -> None:
    model, teacher = adapted(), Sum(3.0)
    before = compare(model, teacher)
    losses = train(model, [teacher], tmp_path, replace(CONFIG, fit=replace(CONFIG.fit, epochs=8)))
    model.eval()
    after = compare(model, teacher)
    assert losses[-1] < 0.5 * losses[0]
    assert [found.views for found in after] == ["augmented", "cutmix", "condensed"]
    assert all(now.mse < 0.5 * then.mse for now, then in zip(after, before, strict=True))


class Counted(Sum):
    """Count the images that are classified."""

    def __init__(self, factor: float) -> None:
        super().__init__(factor)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return super().forward(images)


def test_the_logits_of_some_epochs_can_be_computed_once_and_gone_round(tmp_path: Path) -> None:
    stored, teacher = adapted(), Counted(3.0)
    config = replace(CONFIG, target_epochs=CONFIG.fit.epochs)
    train(stored, [teacher], tmp_path / "stored", config)
    assert teacher.seen == CONFIG.fit.epochs * len(DATA)
    online = adapted()
    train(online, [Sum(3.0)], tmp_path / "online")
    assert torch.allclose(weights(stored), weights(online), atol=2e-3)

    short, teacher = adapted(), Counted(3.0)
    train(short, [teacher], tmp_path / "short", replace(CONFIG, target_epochs=1))
    assert teacher.seen == len(DATA)
    assert not torch.allclose(weights(short), weights(online), atol=2e-3)


def test_a_run_with_stored_logits_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aerogel.condense.fit._SAVE_EVERY_S", 0.0)
    config = replace(CONFIG, target_epochs=2)
    straight, cut, resumed = adapted(), adapted(), adapted()
    train(straight, [Sum(3.0)], tmp_path / "straight", config)
    train(cut, [Sum(3.0)], tmp_path / "cut", config, stop=3)
    teacher = Counted(3.0)
    train(resumed, [teacher], tmp_path / "cut", config)
    assert teacher.seen == 0
    assert torch.equal(weights(resumed), weights(straight))


def test_weak_teachers_are_the_last_or_those_named() -> None:
    snapshots = [Sum(factor) for factor in (1.0, 2.0, 3.0)]
    assert list(pick_teachers(snapshots, 2)) == snapshots[1:]
    assert list(pick_teachers(snapshots, 3)) == snapshots
    assert list(pick_teachers(snapshots, (1, 3))) == [snapshots[0], snapshots[2]]
    assert list(pick_teachers(snapshots, (2,))) == [snapshots[1]]


def test_weak_teachers_are_averaged(tmp_path: Path) -> None:
    one, two = adapted(), adapted()
    train(one, [Sum(1.0), Sum(3.0)], tmp_path / "one")
    train(two, [Sum(2.0)], tmp_path / "two")
    assert torch.allclose(weights(one), weights(two), atol=1e-4)
    assert not torch.allclose(weights(one), weights(adapted()), atol=1e-2)


def test_hard_labels_weigh_in(tmp_path: Path) -> None:
    one, two = adapted(), adapted()
    train(one, [Sum(1.0)], tmp_path / "one")
    train(two, [Sum(1.0)], tmp_path / "two", replace(CONFIG, ce_weight=1.0))
    assert not torch.allclose(weights(one), weights(two), atol=1e-3)


def test_a_run_that_was_cut_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aerogel.condense.fit._SAVE_EVERY_S", 0.0)
    straight, cut, resumed = adapted(), adapted(), adapted()
    train(straight, [Sum(1.0)], tmp_path / "straight")
    train(cut, [Sum(1.0)], tmp_path / "cut", stop=3)
    losses = train(resumed, [Sum(1.0)], tmp_path / "cut")
    assert 0 < len(losses) < 4
    assert torch.equal(weights(resumed), weights(straight))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"expected a finite loss; got nan in epoch 0; what to do: lower"
    ) as caught:
        train(adapted(), [Sum(float("nan"))], tmp_path)
    assert isinstance(caught.value, AerogelError)


def test_a_generator_equal_to_the_teacher_is_wholly_true() -> None:
    found = compare(Sum(2.0), Sum(2.0))
    assert [(each.agreement, each.mse, each.samples) for each in found] == [
        *[(1.0, 0.0, 36)] * 2,
        (1.0, 0.0, 2007),
    ]
    assert all(abs(each.kl) < 1e-6 for each in found)


def test_at_most_two_thousand_views_are_compared() -> None:
    many = replace(
        DATA, images=DATA.images.repeat(60, 1, 1, 1), labels=DATA.labels.repeat(60), ids=DATA.ids * 60
    )
    augmented, cutmix, _ = compare(Sum(2.0), Sum(-2.0), many)
    assert (augmented.samples, cutmix.samples) == (2000, 2000)


def test_tuning_brings_the_labels_of_the_condensed_images_closer(tmp_path: Path) -> None:
    class Corner(Sum):
        """Depend on more than a backbone of random weights can follow for all images."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + images[:, 0, :3, :3].flatten(1).sort(1).values[:, 2:5]

    model, teacher = adapted(), Corner(3.0)
    train(model, [teacher], tmp_path, replace(CONFIG, fit=replace(CONFIG.fit, epochs=20)))
    model.eval()
    before = compare(model, teacher)
    losses = tune(model, [teacher], tmp_path, replace(CONFIG, tune_epochs=200, tune_lr=0.01))
    assert len(losses) == 200
    model.eval()
    after = compare(model, teacher)
    assert after[2].mse < 0.8 * before[2].mse
    assert after[0].mse < 2.0 * before[0].mse


def test_tuning_shows_the_views_that_students_see_and_some_real_ones(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watched(Sum):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return super().forward(images)

    tune(adapted(), [Watched(1.0)], tmp_path, replace(CONFIG, tune_epochs=2, ce_weight=0.5))
    ours = condensed()
    assert [len(views) for views in seen] == [9, 1, 9, 1]
    for epoch, views in enumerate(seen[::2]):
        wanted, _ = ours.views.render(ours.images, epoch, np.arange(len(ours)))
        shown = {view.numpy().tobytes() for view in views}
        assert shown == {view.numpy().tobytes() for view in wanted}
    assert not torch.equal(seen[1], seen[3])


def test_stored_targets_show_their_epochs_in_turn_and_ask_the_teacher_once(tmp_path: Path) -> None:
    teacher = Counted(1.0)
    config = replace(CONFIG, tune_epochs=6, tune_target_epochs=2, target_epochs=1)
    few = tune(adapted(), [teacher], tmp_path / "few", config)
    assert teacher.seen == 2 * len(condensed()) + len(DATA)
    online = tune(adapted(), [Sum(1.0)], tmp_path / "online", replace(config, tune_target_epochs=0))
    assert few[:2] == pytest.approx(online[:2], rel=1e-2)
    assert few[2:] != pytest.approx(online[2:], rel=1e-2)


def test_a_tuning_that_was_cut_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aerogel.condense.fit._SAVE_EVERY_S", 0.0)
    config = replace(CONFIG, tune_epochs=4)
    straight, cut, resumed = adapted(), adapted(), adapted()
    for model, work in ((straight, "straight"), (cut, "cut")):
        train(model, [Sum(3.0)], tmp_path / work, config)
    tune(straight, [Sum(3.0)], tmp_path / "straight", config)
    tune(cut, [Sum(3.0)], tmp_path / "cut", config, stop=3)
    assert train(resumed, [Sum(3.0)], tmp_path / "cut", config) == []
    assert len(tune(resumed, [Sum(3.0)], tmp_path / "cut", config)) == 2
    assert torch.equal(weights(resumed), weights(straight))


@pytest.mark.parametrize(
    ("agreement", "samples", "classes", "fine"),
    [
        (0.10, 1000, 10, False),
        (0.13, 1000, 10, False),
        (0.14, 1000, 10, True),
        (0.55, 4, 10, False),
        (0.56, 4, 10, True),
        (0.5, 4000, 2, False),
        (0.75, 4, 2, False),
        (0.76, 4, 2, True),
        (float("nan"), 1000, 10, False),
    ],
)
def test_chance_is_refused_with_what_to_try(agreement: float, samples: int, classes: int, fine: bool) -> None:
    fidelity = Fidelity("augmented", agreement, 0.0, 0.0, samples)
    if fine:
        require_above_chance(fidelity, classes)
        return
    with pytest.raises(ProjectorError, match=r"what to do: .*projector\.fit\.lr.*projector\.rank"):
        require_above_chance(fidelity, classes)
