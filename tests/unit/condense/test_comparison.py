"""Students with labels of every kind are compared on what they weigh and what they reach."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aerogel.condense.codecs.encodings import view_bytes
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.comparison import HARD, ONE_PER_IMAGE, Comparison, Row
from aerogel.condense.config import LABEL_KINDS
from aerogel.condense.labels import Batch, StoredLabels, make_batch
from aerogel.condense.pipeline import Pipeline
from aerogel.core.config import to_dict
from aerogel.core.folders import read_manifest
from aerogel.errors import ConfigError, DataError, FolderConflictError, IntegrityError
from tests.unit.condense import tiny

FIT = {"epochs": 3, "batch_size": 4, "lr": 0.01}
CODED = ("stored-int8", "stored-top2", "stored-pruned2", "stored-pruned2+int8", "stored-vq4", "stored-pq2x4")
KINDS = (*LABEL_KINDS, *CODED)


def comparison(out: Path, **student: Any) -> Comparison:
    settings = {"labels": list(KINDS), "random_baseline": True, "lrs": [1e-3], "fit": FIT, **student}
    return Comparison(Pipeline(tiny.config(student=settings), tiny.sources(), out))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Return a comparison of all kinds of labels whose students are trained."""
    found = comparison(tmp_path_factory.mktemp("comparison"))
    found.rows()
    return found


def test_there_is_a_row_for_every_kind_and_the_baseline(
    made: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("a student was trained again")

    monkeypatch.setattr("aerogel.condense.comparison.train_student", unexpected)
    rows = made.rows()
    assert [(row.labels, row.images) for row in rows] == [
        *((kind, "chosen") for kind in KINDS),
        ("stored-fp16", "random"),
    ]
    assert all(0.0 <= row.accuracy.value <= 100.0 for row in rows)
    assert rows[0].to_dict()["accuracy"]["unit"] == "%"


def test_labels_weigh_what_lies_on_disk(made: Comparison) -> None:
    out = made.pipeline.out
    weight = {row.labels: row.label_bytes for row in made.rows() if row.images == "chosen"}
    stored = {kind: list((out / "labels" / kind).glob("store-*")) for kind in ("stored-fp32", "stored-fp16")}
    for kind, paths in stored.items():
        assert weight[kind] == sum(path.stat().st_size for path in paths)
    views, classes = 6 * FIT["epochs"], 3
    assert weight["stored-fp32"] - 4 * views * classes == weight["stored-fp16"] - 2 * views * classes
    for kind in CODED:
        folder = out / "labels" / kind
        files = [path for path in folder.iterdir() if path.name != "manifest.json"]
        assert weight[kind] == sum(path.stat().st_size for path in files)
        parsed = parse_codec(kind)
        kept = 6 * parsed.kept_epochs(FIT["epochs"])
        books = 4 * classes * 2 if parsed.has_codebook else 0
        assert 0 < weight[kind] - kept * view_bytes(parsed, classes) - books < 400 * len(files)
    assert weight["hard"] == (out / "labels" / "small" / HARD).stat().st_size
    assert weight["one-per-image"] == (out / "labels" / "small" / ONE_PER_IMAGE).stat().st_size
    labels = (out / "archive" / "labels").rglob("*")
    assert weight["generator"] == sum(path.stat().st_size for path in labels)
    assert weight["teacher"] == (out / "teacher.fp16.safetensors").stat().st_size
    backbones = {row.labels: row.backbone_bytes for row in made.rows()}
    assert backbones["generator"] == made.pipeline.backbone.size_bytes
    assert set(backbones.values()) == {0, made.pipeline.backbone.size_bytes}


def weights(made: Comparison, kind: str, images: str = "chosen") -> dict[str, torch.Tensor]:
    return load_file(made.pipeline.out / "students" / f"{kind}-{images}-0" / "student.safetensors")


def test_stored_float32_labels_train_the_student_of_the_online_teacher_bit_for_bit(made: Comparison) -> None:
    online, stored = weights(made, "teacher"), weights(made, "stored-fp32")
    assert all(torch.equal(online[key], stored[key]) for key in online)


def test_every_other_kind_of_labels_trains_another_student(made: Comparison) -> None:
    students = [weights(made, kind) for kind in KINDS if kind != "stored-fp32"]
    students.append(weights(made, "stored-fp16", "random"))
    prints = {tuple(value.sum().item() for value in student.values()) for student in students}
    assert len(prints) == len(students)


def test_pruned_students_go_round_the_views_that_have_labels(
    made: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown: list[int] = []

    def spy(images: Any, labels: Any, views: Any, epoch: int, samples: Any, device: str) -> Batch:
        shown.append(epoch)
        return make_batch(images, labels, views, epoch, samples, device)

    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    found = Comparison(Pipeline(made.config, made.pipeline.sources, out))
    for kind, epochs in (("stored-pruned2", [0, 1, 0]), ("stored-fp16", [0, 1, 2])):
        shutil.rmtree(out / "students" / f"{kind}-chosen-0")
        with monkeypatch.context() as patch:
            patch.setattr("aerogel.condense.student.make_batch", spy)
            assert found.row(kind, "chosen").accuracy == made.row(kind, "chosen").accuracy
        assert list(dict.fromkeys(shown)) == sorted(set(epochs))
        assert [shown[2 * index] for index in range(3)] == epochs and len(shown) == 6
        shown.clear()


def test_a_damaged_store_is_refused_before_a_student_is_trained(
    made: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    shutil.rmtree(out / "students" / "stored-vq4-chosen-0")
    (out / "labels" / "stored-vq4" / "codebook.safetensors").unlink()
    monkeypatch.delattr("aerogel.condense.student.fit")
    found = Comparison(Pipeline(made.config, made.pipeline.sources, out))
    with pytest.raises(IntegrityError, match="codebook"):
        found.row("stored-vq4", "chosen")


def test_codecs_for_more_classes_than_there_are_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stored-top3 keeps 3 of 3 classes"):
        comparison(tmp_path, labels=["stored-top3"])
    assert list(tmp_path.iterdir()) == []


def test_the_rate_of_coded_labels_is_chosen_with_them(tmp_path: Path, made: Comparison) -> None:
    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    settings = {**to_dict(made.config.student), "lrs": [1e-9, 0.05]}
    found = Comparison(Pipeline(tiny.config(student=settings), made.pipeline.sources, out))
    assert isinstance(found.online("stored-int8"), StoredLabels)
    assert found.rate("stored-pruned2+int8") in (1e-9, 0.05)


def test_half_precision_stays_close_to_full(made: Comparison) -> None:
    full, half = weights(made, "stored-fp32"), weights(made, "stored-fp16")
    assert all(torch.allclose(full[key], half[key], atol=1e-2) for key in full)


def test_another_generator_voids_no_student_of_other_labels(
    made: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    for name in ("generator", "archive"):
        shutil.rmtree(out / name)
    other = tiny.config(student=to_dict(made.config.student), projector={"rank": 1})
    found = Comparison(Pipeline(other, tiny.sources(), out))
    with pytest.raises(FolderConflictError):
        found.row("generator", "chosen")
    monkeypatch.delattr("aerogel.condense.comparison.train_student")
    for kind in set(KINDS) - {"generator"}:
        assert found.row(kind, "chosen").accuracy == made.row(kind, "chosen").accuracy
    assert found.row("stored-fp16", "random").accuracy == made.row("stored-fp16", "random").accuracy


def test_students_see_the_images_and_views_of_the_archive(made: Comparison) -> None:
    ours, archived = made.data("chosen", 0), made.pipeline.archive.training_set()
    assert torch.equal(ours.images, archived.images)
    assert torch.equal(ours.labels, archived.labels)
    assert replace(ours, images=archived.images, labels=archived.labels) == archived


def test_hard_labels_and_random_images_are_there_unasked(made: Comparison, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    student = {**to_dict(made.config.student), "labels": ["generator"]}
    found = Comparison(Pipeline(tiny.config(student=student), tiny.sources(), out)).rows()
    assert [(row.labels, row.images) for row in found] == [
        ("generator", "chosen"),
        ("hard", "chosen"),
        ("stored-fp16", "random"),
    ]
    assert all(row.network == "convnet" and row.values == (row.accuracy.value,) for row in found)


def test_the_rows_of_the_scores_and_of_other_networks(made: Comparison, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made.pipeline.out, tmp_path / "run"))
    more: dict[str, Any] = {
        "labels": ["generator", "stored-fp16", "hard"],
        "full_baseline": True,
        "plain_views": True,
        "networks": ["resnet18", "vit-t"],
        "network_widths": [2, 3],
    }
    student = {**to_dict(made.config.student), **more}
    found = Comparison(Pipeline(tiny.config(student=student), tiny.sources(), out))
    rows = found.rows()
    before = {(row.labels, row.images): row for row in made.rows()}
    for row in rows[:4]:
        assert row == before[row.labels, row.images], "asking for more changes no student"
    assert [(row.network, row.labels, row.images, row.views) for row in rows[4:9]] == [
        ("convnet", "generator", "random", "augmented"),
        ("convnet", "hard", "all", "augmented"),
        ("convnet", "stored-fp16", "chosen", "plain"),
        ("convnet", "stored-fp16", "random", "plain"),
        ("resnet18", "generator", "chosen", "augmented"),
    ]
    assert {row.network for row in rows[8:]} == {"resnet18", "vit-t"} and len(rows) == 16
    whole = rows[5]
    fit = found.config.teacher.fit
    assert whole.rate == fit.lr
    folder = out / "students" / "hard-all-0"
    assert load_file(folder / HARD)["labels"].tolist() == found.pipeline.train.labels.tolist()
    assert whole.label_bytes == (folder / HARD).stat().st_size
    assert read_manifest(folder).facts["epochs"] == fit.epochs
    assert read_manifest(folder).config["views"] == to_dict(found.config.teacher.views)
    plain = found.data("chosen", 0, "plain")
    shown, _ = plain.views.render(plain.images, 1, np.arange(len(plain)))
    assert torch.allclose(shown, plain.images.float() / 255.0, atol=1e-5)
    assert any(name.startswith("model.") for name in _names(out / "students" / "vit-t-hard-chosen-0"))


def _names(folder: Path) -> list[str]:
    return [name.removeprefix("network.") for name in load_file(folder / "student.safetensors")]


def test_a_row_survives_its_json(made: Comparison) -> None:
    row = made.rows()[0]
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    old = {name: value for name, value in row.to_dict().items() if name not in ("network", "views", "values")}
    assert Row.from_dict(old) == replace(row, network="", values=())
    changes: list[dict[str, Any]] = [
        {"evil": 1},
        {"labels": 1},
        {"network": ["convnet"]},
        {"views": None},
        {"label_bytes": -1},
        {"label_bytes": 1.5},
        {"rate": "fast"},
        {"values": 5},
        {"values": ["high"]},
        {"accuracy": 0.5},
    ]
    for change in changes:
        with pytest.raises(DataError, match="what to do"):
            Row.from_dict(row.to_dict() | change)


def test_every_seed_is_a_student_of_its_own(tmp_path: Path) -> None:
    found = comparison(tmp_path, labels=["hard"], random_baseline=False, seeds=[0, 1])
    (row,) = found.rows()
    assert row.accuracy.samples == 2
    assert row.accuracy.spread is not None
    one, two = (
        load_file(tmp_path / "students" / f"hard-chosen-{seed}" / "student.safetensors") for seed in (0, 1)
    )
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_the_rate_is_chosen_on_held_out_training_images(tmp_path: Path) -> None:
    found = comparison(tmp_path, lrs=[1e-9, 0.05], fit={**FIT, "epochs": 10}, labels=["generator"])
    test = found.pipeline.sources.test
    test.images.zero_()
    assert found.rate("generator") == 0.05
    assert found.rate("generator") == 0.05
    assert (tmp_path / "rates" / "generator" / "manifest.json").is_file()
    assert comparison(tmp_path / "b", lrs=[0.02]).rate("hard") == 0.02
