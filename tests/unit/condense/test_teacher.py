"""A teacher is trained with snapshots, resumed, stored, imported, and refused for other classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aerogel.condense.api import Condensed
from aerogel.condense.config import FitConfig, TeacherConfig, ViewConfig
from aerogel.condense.families.cifar_resnet import load_cifar_resnet
from aerogel.condense.teacher import (
    TEACHER_DESCRIPTION,
    Teacher,
    build_teacher,
    describe_teacher,
    identify_import,
    import_teacher,
    load_teacher,
    predict,
    require_same_classes,
    save_weights,
    snapshot_epochs,
    train_teacher,
)
from aerogel.errors import DataError, IntegrityError, MismatchError
from aerogel.zoo.imageset import ImageSet
from tests.unit.condense import tiny

DATA = tiny.draw(12)
CONFIG = TeacherConfig(
    width=4,
    depth=1,
    snapshots=2,
    views=ViewConfig(crop_scale=(0.9, 1.0), flip=0.0, cutmix=0.2),
    fit=FitConfig(epochs=4, batch_size=12, lr=0.02),
)


def train(
    work: Path, config: TeacherConfig = CONFIG, stop: int | None = None
) -> tuple[nn.Module, list[float]]:
    classifier = build_teacher(DATA, config, 3)
    losses = []
    for state in train_teacher(classifier, DATA, config, seed=3, device="cpu", work=work):
        losses.append(state.loss)
        if state.epoch + 1 == stop:
            break
    return classifier, losses


def store(work: Path) -> Path:
    train(work)
    shutil.rmtree(work / "checkpoint")
    describe_teacher(DATA, CONFIG, {"test_accuracy": 1.0}, work)
    return work


def same(one: nn.Module, two: nn.Module) -> bool:
    theirs = two.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("epochs", "count", "expected"), [(9, 3, [3, 6, 9]), (10, 3, [3, 7, 10]), (2, 2, [1, 2]), (7, 1, [7])]
)
def test_snapshots_are_evenly_spaced_and_end_with_the_last(
    epochs: int, count: int, expected: list[int]
) -> None:
    assert snapshot_epochs(epochs, count) == expected


def test_training_learns_and_keeps_snapshots_from_early_to_late(tmp_path: Path) -> None:
    classifier, losses = train(tmp_path, replace(CONFIG, fit=replace(CONFIG.fit, epochs=10)))
    assert losses[-1] < 0.5 * losses[0]
    describe_teacher(DATA, CONFIG, {}, tmp_path)
    teacher = load_teacher(tmp_path)
    assert len(teacher.snapshots) == 2
    assert same(teacher.snapshots[-1], classifier)
    assert teacher.classifier is teacher.snapshots[-1]
    assert not same(teacher.snapshots[0], classifier)
    accuracy = (predict(classifier, DATA.images, "cpu").argmax(1) == DATA.labels).float().mean()
    assert accuracy > 0.9


def test_label_smoothing_changes_the_loss(tmp_path: Path) -> None:
    _, plain = train(tmp_path / "a", stop=1)
    _, smooth = train(tmp_path / "b", replace(CONFIG, label_smoothing=0.5), stop=1)
    assert plain != smooth


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_that_was_cut_ends_with_the_same_snapshots(tmp_path: Path, stop: int) -> None:
    train(tmp_path / "straight")
    train(tmp_path / "cut", stop=stop)
    train(tmp_path / "cut")
    for name in ("snapshot-00.safetensors", "snapshot-01.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_stored_teacher_gives_the_same_logits(tmp_path: Path) -> None:
    teacher = load_teacher(store(tmp_path))
    classifier, _ = train(tmp_path / "again")
    assert torch.equal(
        predict(teacher.classifier, DATA.images, "cpu"), predict(classifier, DATA.images, "cpu")
    )
    assert (teacher.class_names, teacher.channels, teacher.size) == (tiny.NAMES, 1, 8)
    assert not any(parameter.requires_grad for parameter in teacher.classifier.parameters())


def test_weights_may_be_stored_in_half_precision(tmp_path: Path) -> None:
    classifier = build_teacher(DATA, CONFIG, 0)
    save_weights(classifier, tmp_path / "full")
    save_weights(classifier, tmp_path / "half", torch.float16)
    numbers = sum(value.numel() for value in classifier.state_dict().values())
    assert (tmp_path / "full").stat().st_size - (tmp_path / "half").stat().st_size >= 1.9 * numbers


@pytest.mark.parametrize(
    "change",
    [
        {"network": "nothing"},
        {"width": 5},
        {"class_names": ["a", "b"]},
        {"class_names": None},
        {"mean": [0.0, 0.0]},
        {"size": "large"},
        {"network": "transformers"},
    ],
)
def test_a_teacher_at_odds_with_its_description_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = store(tmp_path) / TEACHER_DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IntegrityError, match=r"(?s)expected a teacher's folder; got .*; what to do: "):
        load_teacher(tmp_path)


def test_a_teacher_with_damaged_or_missing_files_is_refused(tmp_path: Path) -> None:
    store(tmp_path)
    (tmp_path / "snapshot-01.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(IntegrityError):
        load_teacher(tmp_path)
    for path in tmp_path.glob("snapshot-*"):
        path.unlink()
    with pytest.raises(IntegrityError, match="no snapshot"):
        load_teacher(tmp_path)
    with pytest.raises(IntegrityError):
        load_teacher(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("bar", "ring", "dot"), "1: 'dot' against 'ring'"),
        (("bar", "dot", "circle"), "2: 'ring' against 'circle'"),
        (("bar", "dot", "ring", "star"), "4 classes"),
    ],
)
def test_other_classes_or_another_order_are_refused(names: tuple[str, ...], told: str) -> None:
    teacher = Teacher(nn.Identity(), tiny.NAMES, 1, 8, ())
    require_same_classes(teacher, DATA)
    with pytest.raises(MismatchError, match=told):
        require_same_classes(teacher, tiny.draw(2, names=names))


def test_images_of_another_shape_are_refused() -> None:
    teacher = Teacher(nn.Identity(), tiny.NAMES, 1, 8, ())
    with pytest.raises(MismatchError, match="set channels=1 and size=8"):
        require_same_classes(teacher, tiny.draw(2, channels=3))
    with pytest.raises(MismatchError, match="set channels=1 and size=8"):
        require_same_classes(teacher, tiny.draw(2, size=12))


def test_the_folder_of_a_teacher_stage_is_imported_whole(finished: Condensed, tmp_path: Path) -> None:
    source = finished.folder / "teacher"
    import_teacher(str(source), DATA, tmp_path)
    for path in source.iterdir():
        assert path.name == "manifest.json" or (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert same(load_teacher(tmp_path).classifier, load_teacher(source).classifier)
    assert len(load_teacher(tmp_path).snapshots) == 2


def test_a_damaged_teacher_stage_is_not_imported(finished: Condensed, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.folder / "teacher", tmp_path / "teacher"))
    path = copy / "snapshot-00.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    (tmp_path / "work").mkdir()
    with pytest.raises(IntegrityError, match="snapshot-00"):
        import_teacher(str(copy), DATA, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_transformers_classifier_is_imported(tmp_path: Path, kind: str) -> None:
    source = tiny.write_classifier(tmp_path / "source", kind=kind)
    found = import_teacher(str(source), DATA, tmp_path / "work")
    shutil.rmtree(source)
    teacher = load_teacher(tmp_path / "work")
    expected = predict(found.classifier, DATA.images, "cpu")
    assert expected.std() > 1e-3
    assert torch.equal(predict(teacher.classifier, DATA.images, "cpu"), expected)
    assert (teacher.class_names, teacher.channels, teacher.size) == (tiny.NAMES, 1, 8)
    assert teacher.snapshots == (teacher.classifier,)
    suffixes = {path.suffix for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_a_transformers_classifier_of_other_classes_is_refused(tmp_path: Path) -> None:
    source = tiny.write_classifier(tmp_path / "source", names=("bar", "ring", "dot"))
    with pytest.raises(MismatchError, match="1: 'ring' against 'dot'"):
        import_teacher(str(source), DATA, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def name_by(file: Path, shift: int = 0) -> ImageSet:
    """Return colour images whose labels are what the network in ``file`` says, ``shift`` classes on."""
    data = tiny.draw(12, channels=3, size=16)
    said = predict(load_cifar_resnet(file), data.images, "cpu").argmax(1)
    return replace(data, labels=(said + shift) % len(tiny.NAMES))


def test_published_weights_are_imported(tmp_path: Path) -> None:
    file = tiny.write_cifar_resnet(tmp_path / "net.safetensors")
    data = name_by(file)
    found = import_teacher(str(file), data, tmp_path / "work")
    expected = predict(found.classifier, data.images, "cpu")
    before = identify_import(str(file))
    assert identify_import(str(shutil.copyfile(file, tmp_path / "copy.safetensors"))) == before
    file.unlink()
    teacher = load_teacher(tmp_path / "work")
    assert torch.equal(predict(teacher.classifier, data.images, "cpu"), expected)
    assert (teacher.class_names, teacher.channels, teacher.size) == (tiny.NAMES, 3, 16)
    assert teacher.snapshots == (teacher.classifier,)
    description = tmp_path / "work" / "teacher.json"
    whole = description.read_text()
    description.write_text(whole.replace('"bar"', '"bar", "box"'))
    with pytest.raises(IntegrityError, match="4 class names"):
        load_teacher(tmp_path / "work")
    description.write_text(whole)
    (tmp_path / "work" / "published.safetensors").write_bytes(b"none")
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_teacher(tmp_path / "work")


def test_published_weights_for_other_data_are_refused(tmp_path: Path) -> None:
    file = tiny.write_cifar_resnet(tmp_path / "net.safetensors")
    four = tiny.draw(12, channels=3, size=16, names=("bar", "dot", "ring", "box"))
    for data, told in (
        (name_by(file, shift=1), "0 % of 36 training images"),
        (four, "3 channels and 4 classes"),
        (tiny.draw(12, size=16), "1 channels and 3 classes"),
    ):
        with pytest.raises(MismatchError, match=told):
            import_teacher(str(file), data, tmp_path / "work")
    file.write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be read"):
        import_teacher(str(file), tiny.draw(12), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_path_with_no_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be loaded"):
        import_teacher(str(tmp_path), DATA, tmp_path / "work")


def test_an_import_is_told_from_another_by_its_content(finished: Condensed, tmp_path: Path) -> None:
    assert identify_import("someone/model") == "hub:someone/model"
    stage = finished.folder / "teacher"
    assert identify_import(str(stage)) == identify_import(str(shutil.copytree(stage, tmp_path / "copy")))
    source = tiny.write_classifier(tmp_path / "source")
    before = identify_import(str(source))
    (source / "notes.txt").write_text("mine")
    assert identify_import(str(source)) == before
    path = source / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.4", "0.5"))
    assert identify_import(str(source)) != before
