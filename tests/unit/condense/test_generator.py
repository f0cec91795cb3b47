"""The label generator learns the teacher's labels, resumes to the same weights, and is refused at chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from aerogel.condense.config import FitConfig, ProjectorConfig, ViewConfig
from aerogel.condense.generator import measure_fidelity, require_above_chance, train_generator
from aerogel.condense.projector import Fidelity, adapt, build_projector
from aerogel.errors import AerogelError, DivergedError, ProjectorError
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


def train(
    model: nn.Module,
    teachers: list[nn.Module],
    work: Path,
    config: ProjectorConfig = CONFIG,
    stop: int | None = None,
) -> list[float]:
    run = train_generator(model, DATA, teachers, config, VIEWS, seed=5, device="cpu", work=work)  # type: ignore[arg-type]
    losses = []
    for state in run:
        losses.append(state.loss)
        if stop is not None and state.epoch + 1 == stop:
            break
    return losses


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters() if value.requires_grad])


def test_training_brings_the_labels_to_the_teachers(tmp_path: Path) -> None:
    model, teacher = adapted(), Sum(3.0)
    before = measure_fidelity(model, teacher, DATA.images, DATA.labels, VIEWS, seed=0, device="cpu")
    losses = train(model, [teacher], tmp_path, replace(CONFIG, fit=replace(CONFIG.fit, epochs=8)))
    model.eval()
    after = measure_fidelity(model, teacher, DATA.images, DATA.labels, VIEWS, seed=0, device="cpu")
    assert losses[-1] < 0.5 * losses[0]
    assert [found.views for found in after] == ["augmented", "cutmix"]
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
    found = measure_fidelity(Sum(2.0), Sum(2.0), DATA.images, DATA.labels, VIEWS, seed=0, device="cpu")
    assert [(each.agreement, each.mse, each.samples) for each in found] == [(1.0, 0.0, 36)] * 2
    assert all(abs(each.kl) < 1e-6 for each in found)


def test_at_most_two_thousand_views_are_compared() -> None:
    images = DATA.images.repeat(60, 1, 1, 1)
    labels = DATA.labels.repeat(60)
    found = measure_fidelity(Sum(2.0), Sum(-2.0), images, labels, VIEWS, seed=0, device="cpu")
    assert [each.samples for each in found] == [2000, 2000]


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
