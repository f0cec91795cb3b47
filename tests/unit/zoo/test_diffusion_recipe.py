"""The scripts that made and judged the shipped diffusion model, on tiny networks and a few pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from aerogel.errors import MismatchError
from aerogel.zoo import ImageSet, write_idx
from aerogel.zoo.diffusion import ClassConditionalPipeline

RECIPES = Path(__file__).parents[3] / "recipes" / "zoo"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    return import_module("train_fashion_unet")


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    return import_module("fashion_classifier")


@pytest.fixture
def data() -> ImageSet:
    images = torch.randint(0, 256, (40, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    names = tuple(f"class {number}" for number in range(10))
    ids = tuple(str(number) for number in range(40))
    return ImageSet(images.to(torch.uint8), torch.arange(40) % 10, names, ids, "own", "none")


def make_settings(recipe: Any, **changes: Any) -> Any:
    return recipe.Settings(**{"steps": 6, "batch_size": 8, "warmup": 2, "widths": (16, 32), **changes})


def run(training: Any, losses: Iterator[tuple[int, float]], stop: int) -> list[float]:
    found = []
    for step, loss in losses:
        found.append(loss)
        if step == stop:
            break
    assert training.step == stop
    return found


def test_pictures_are_padded_and_cut_into_patches(recipe: Any) -> None:
    images = torch.arange(2 * 28 * 28).remainder(256).to(torch.uint8).view(2, 1, 28, 28)
    found = recipe.prepare(images)
    assert found.shape == (2, 4, 16, 16)
    whole = torch.nn.functional.pixel_shuffle(found, 2)
    assert torch.equal(whole[:, :, 2:30, 2:30], images)
    assert whole.sum() == images.sum()


def test_a_stopped_run_ends_as_a_straight_one(recipe: Any, data: ImageSet, tmp_path: Path) -> None:
    straight = recipe.Training(data, make_settings(recipe))
    expected = run(straight, recipe.train(straight, tmp_path / "a"), 6)
    stopped = recipe.Training(data, make_settings(recipe, steps=9))
    first = run(stopped, recipe.train(stopped, tmp_path / "b", every_s=0), 4)
    resumed = recipe.Training(data, make_settings(recipe))
    last = run(resumed, recipe.train(resumed, tmp_path / "b"), 6)
    assert first + last == expected
    for name, mean in straight.means.items():
        assert torch.equal(mean, resumed.means[name])


def test_another_run_is_not_continued(recipe: Any, data: ImageSet, tmp_path: Path) -> None:
    begun = recipe.Training(data, make_settings(recipe))
    run(begun, recipe.train(begun, tmp_path, every_s=0), 5)
    for changes in ({"lr": 1e-4}, {"steps": 7}):
        other = recipe.Training(data, make_settings(recipe, **changes))
        with pytest.raises(MismatchError, match="use another --work folder"):
            next(recipe.train(other, tmp_path))


def test_the_rate_rises_stays_and_falls(recipe: Any, data: ImageSet) -> None:
    training = recipe.Training(data, make_settings(recipe, steps=10, lr=1.0))
    rates = []
    for training.step in range(10):
        rates.append(training.rate())
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])


def test_labels_are_dropped_for_guidance(recipe: Any, data: ImageSet) -> None:
    seen: list[torch.Tensor] = []
    training = recipe.Training(data, make_settings(recipe, label_dropout=0.5))
    training.unet.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    for _ in range(5):
        training.advance()
    labels = torch.cat(seen)
    assert 8 <= int((labels == 10).sum()) <= 32
    assert set(labels.tolist()) <= set(range(11))


@pytest.fixture
def idx_folder(data: ImageSet, tmp_path: Path) -> Path:
    folder = tmp_path / "fashion"
    folder.mkdir()
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte", data.images[:, 0].numpy())
        write_idx(folder / f"{split}-labels-idx1-ubyte", data.labels.numpy().astype(np.uint8))
    return folder


def call(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()


def test_both_scripts_run_from_the_command_line(
    recipe: Any,
    classifier: Any,
    idx_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work, out = tmp_path / "runs", tmp_path / "unet"
    flags = ("--data", idx_folder, "--work", work)
    short = ("--steps", 2, "--batch-size", 8, "--widths", 16, 32)
    call(recipe, monkeypatch, *flags, "--out", out, *short)
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert card["widths"] == [16, 32]
    pipe = ClassConditionalPipeline.from_pretrained(out)
    assert pipe.unet.dtype == torch.float32
    stored = (out / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert stored < 2 * card["parameters"] + 50_000

    torch.manual_seed(0)
    save_file(classifier.FashionClassifier().state_dict(), work / "fashion-classifier.safetensors")
    evaluate = import_module("evaluate_fashion_unet")
    choice = ("--per-class", 2, "--steps", 2, "--guidance", 1, 2, "--seed", 1)
    call(evaluate, monkeypatch, *flags, "--model", out, *choice)
    verdict = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(verdict["recognised"]) == {"1", "2"}
    assert 0 <= verdict["judge_accuracy"] <= 1
    with Image.open(work / "sheet-guidance-2-seed-1.png") as sheet:
        assert sheet.size == (2 * 2 * 32, 10 * 2 * 32)


def test_the_judge_learns_and_counts(classifier: Any, data: ImageSet, tmp_path: Path) -> None:
    bright = torch.arange(10, dtype=torch.uint8).repeat(4) * 25
    plain = ImageSet(
        bright.view(-1, 1, 1, 1).expand(-1, 1, 28, 28).contiguous(),
        *(data.labels, data.class_names, data.ids, "own", "none"),
    )
    path = tmp_path / "judge.safetensors"
    model = classifier.obtain_classifier(path, plain, epochs=15, batch_size=20)
    padded = torch.nn.functional.pad(plain.images.float() / 255, (2, 2, 2, 2))
    verdict = classifier.judge(model, padded, plain.labels)
    assert verdict.share > 0.3
    assert verdict.share == pytest.approx(sum(verdict.per_class) / 10)
    again = classifier.obtain_classifier(path, plain)
    assert classifier.judge(again, padded, plain.labels) == verdict
