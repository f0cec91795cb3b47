"""A tutor asks the teachers for what the phase and the epoch need, and for no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.slim.cache import plan_cache
from aerogel.slim.canvas import Canvas
from aerogel.slim.config import AlignConfig
from aerogel.slim.features import mask_tokens, observe
from aerogel.slim.lesson import Lesson, Phase, Shown, Tutor
from aerogel.slim.losses import bottleneck_loss, embedding_loss, output_loss
from tests.unit.slim.lessons import CONFIG, Pictures, make
from tests.unit.slim.tiny import build

SHAPES = {"embedding": (32, 4, 4)}


def shown(count: int = 2, *, again: bool = True) -> list[Shown]:
    found = []
    for index in range(count):
        photo = Pictures()[index]
        pixels, placement = Canvas(64).place(photo.image)
        number = index if again else 5 + index
        found.append(Shown(number, photo.identifier, photo.image, pixels, placement.scaled))
    return found


def tutor(made: tuple[Any, Lesson], folder: Path, config: AlignConfig = CONFIG, budget: int = 0) -> Tutor:
    student, lesson = made
    return Tutor(student, lesson, config, plan_cache(folder, "t", SHAPES, 5, budget), "cpu")


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("padding", ["all", "windows", "none"])
@pytest.mark.parametrize("phase", ["bottleneck", "embedding", "output"])
def test_losses_are_those_of_the_features(phase: Phase, padding: Any, relative: bool, tmp_path: Path) -> None:
    made = make(phase)
    student, lesson = made
    config = replace(CONFIG, mask_padding=padding, repair_qkv=False, relative=relative)
    batch = shown()
    pixels = torch.cat([each.pixels for each in batch]).double()
    real = mask_tokens([each.scaled for each in batch], 4, 16)
    assert not real.all()
    masks = {"all": real, "windows": torch.ones_like(real), "none": None}

    def look(model: Any) -> Any:
        with observe(model) as seen:
            return seen.encode(pixels, masks[padding])

    ours, first = look(student), look(lesson.teacher)
    found = tutor(made, tmp_path, config).examine(0, batch)
    if phase == "bottleneck":
        wanted = bottleneck_loss(ours, first, 0.5, repaired=False, relative=relative)
    elif phase == "embedding":
        wanted = embedding_loss(ours, look(lesson.before), first, 0.5, relative=relative)
    else:
        wanted = output_loss(ours, first, relative=relative)
    assert torch.allclose(found.total, wanted.total, rtol=1e-12)
    assert found.terms == pytest.approx(dict(wanted.terms), rel=1e-12)


def count_calls(model: Any) -> list[int]:
    calls: list[int] = []
    model.vision_encoder.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    return calls


def test_bottlenecks_take_the_teacher_live_and_outputs_photo_by_photo(tmp_path: Path) -> None:
    made = make("bottleneck")
    calls = count_calls(made[1].teacher)
    one = tutor(made, tmp_path, budget=1 << 20)
    one.examine(0, shown())
    assert calls == [2] and not list(tmp_path.iterdir())
    one.examine(CONFIG.feature_epochs, shown())
    assert calls == [2, 1, 1] and len(list(tmp_path.rglob("*.safetensors"))) == 2
    one.examine(CONFIG.feature_epochs, shown())
    assert calls == [2, 1, 1]
    one.examine(CONFIG.feature_epochs, shown(again=False))
    assert calls == [2, 1, 1, 1, 1] and len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_the_model_before_is_asked_while_it_weighs_in(tmp_path: Path) -> None:
    made = make("embedding")
    calls = count_calls(made[1].before)
    one = tutor(made, tmp_path)
    one.examine(0, shown())
    assert calls == [2]
    # At (N - 1 - n) / N = 0 already.
    one.examine(CONFIG.feature_epochs - 1, shown())
    assert calls == [2]


@pytest.mark.parametrize(("family", "live"), [("sam", False), ("sam_hq", True)])
def test_masks_take_the_teacher_live_where_its_decoder_reads_more(
    family: str, live: bool, tmp_path: Path
) -> None:
    student, lesson = make("masks", family)
    shapes = SHAPES if family == "sam" else {**SHAPES, "details": (4, 16, 16)}
    calls = count_calls(lesson.teacher)
    planned = plan_cache(tmp_path, "t", shapes, 5, 1 << 20)
    loss = Tutor(student, lesson, CONFIG, planned, "cpu").examine(0, shown())
    assert calls == ([2] if live else [1, 1])
    assert {"masks", "scores", "output"} <= set(loss.terms)


def test_weightings() -> None:
    teacher = build()
    one, two = Lesson("bottleneck", teacher), Lesson("embedding", teacher, teacher)
    config = replace(CONFIG, weight_epochs=4, weight=0.3)
    falling = [0.75, 0.5, 0.25, 0.0, 0.0]
    constant = [0.3, 0.3, 0.3, 0.3, 0.0]

    def weigh(lesson: Lesson, weighting: Any) -> list[float]:
        return [lesson.weigh(epoch, replace(config, weighting=weighting)) for epoch in range(5)]

    assert weigh(one, "paper") == constant and weigh(two, "paper") == falling
    assert weigh(one, "dynamic") == falling and weigh(two, "constant") == constant
    assert weigh(Lesson("output", teacher), "constant") == [0.0] * 5
    half = AlignConfig(epochs=7, weight=0.3)
    assert [one.weigh(epoch, half) for epoch in range(7)] == [0.3] * 4 + [0.0] * 3
    assert [two.weigh(epoch, half) for epoch in range(7)] == falling[:4] + [0.0] * 3


def test_teachers_have_no_graph(tmp_path: Path) -> None:
    made = make("embedding")
    loss = tutor(made, tmp_path).examine(0, shown())
    loss.total.backward()
    assert made[1].before is not None
    assert all(
        each.grad is None for model in (made[1].teacher, made[1].before) for each in model.parameters()
    )
