"""A trained student on disk comes back as it was, and only with images of its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aerogel.condense.config import StudentConfig, ViewConfig
from aerogel.condense.graduate import load_trained, save_student, score_trained
from aerogel.condense.student import TrainingSet, build_student, score
from aerogel.condense.views import Views
from aerogel.errors import DataError, IntegrityError, MismatchError
from tests.unit.condense import tiny

IMAGES = tiny.draw(4)
DATA = TrainingSet(
    IMAGES.images, IMAGES.labels, Views(ViewConfig(), 0, len(IMAGES)), IMAGES.class_names, (0.2,), (0.3,)
)
CONFIG = StudentConfig(width=4, depth=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_student(build_student(DATA, CONFIG, 3), DATA, CONFIG, tmp_path)
    return tmp_path


def test_the_same_logits_come_back(folder: Path) -> None:
    student = build_student(DATA, CONFIG, 3).eval()
    found = load_trained(folder)
    views = IMAGES.images.float() / 255
    assert torch.equal(found.classifier(views), student(views))
    assert (found.class_names, found.channels, found.size) == (tiny.NAMES, 1, 8)
    assert score_trained(found, IMAGES) == score(student, IMAGES)


def test_images_of_another_kind_are_refused(folder: Path) -> None:
    found = load_trained(folder)
    for other in (
        tiny.draw(2, size=10),
        tiny.draw(2, channels=3),
        tiny.draw(2, names=("bar", "ring", "dot")),
    ):
        with pytest.raises(MismatchError, match="bar, dot, ring"):
            score_trained(found, other)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a trained classifier"):
        load_trained(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "shape", "key", "text"])
def test_damage_is_refused(folder: Path, damage: str) -> None:
    weights, description = folder / "student.safetensors", folder / "student.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    else:
        found = json.loads(description.read_text(encoding="utf-8"))
        found["width"] = 5
        if damage == "key":
            del found["network"]
        description.write_text("{" if damage == "text" else json.dumps(found), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"student\.(json|safetensors)"):
        load_trained(folder)
