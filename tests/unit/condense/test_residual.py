"""What the generator leaves out is stored for some views, added back to these, and shipped with the set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.cli.size import size_command
from aerogel.cli.student import train
from aerogel.condense import comparison as comparing
from aerogel.condense import storing
from aerogel.condense.account import describe
from aerogel.condense.api import Condensed, condense
from aerogel.condense.archive import delta_bytes
from aerogel.condense.codecs.shards import store_bytes
from aerogel.condense.collation import ViewKey
from aerogel.condense.comparison import Comparison
from aerogel.condense.condensed import CondensedSet, load_condensed
from aerogel.condense.labels import (
    Batch,
    CorrectedLabels,
    HardLabels,
    NetworkLabels,
    ResidualLabels,
    make_batch,
)
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.residual import compare_sources, store_residual
from aerogel.core.manifests import seal_text
from aerogel.errors import ConfigError, IntegrityError, MismatchError
from tests.unit.condense import tiny

EPOCHS = 2


def config(codec: str = "stored-fp32", epochs: int = EPOCHS, **changes: Any) -> Any:
    return tiny.config(projector={"residual": codec, "residual_epochs": epochs}, **changes)


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a run that stores residuals in full, and compares every kind of labels."""
    data = tiny.sources()
    student = {"labels": ["generator", "stored-fp32", "hard"], "random_baseline": True, "plain_views": False}
    out = tmp_path_factory.mktemp("corrected") / "run"
    return condense(data.train, test=data.test, config=config(student=student), out=out)


def views(data: CondensedSet, epoch: int, samples: list[int]) -> torch.Tensor:
    return data.views.render(data.images, epoch, np.array(samples))[0]


def batch(data: CondensedSet, epoch: int) -> Batch:
    samples = np.arange(len(data))
    return make_batch(data.images, data.class_labels, data.views, epoch, samples, "cpu")


def test_corrected_labels_are_the_teachers(corrected: Condensed) -> None:
    data = load_condensed(corrected.data.folder)
    teacher = corrected.pipeline.teacher.classifier.eval()
    for epoch in range(EPOCHS):
        shown = batch(data, epoch)
        with torch.no_grad():
            expected = teacher(shown.views)
        found = data.label_source.logits(shown)
        assert found is not None and torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(data.generator(shown.views), expected, atol=1e-2)
    assert isinstance(data.label_source, CorrectedLabels) and data.label_source.name == "generator"


def test_labels_are_corrected_for_the_samples_that_are_named(corrected: Condensed) -> None:
    data = load_condensed(corrected.data.folder)
    assert data.residual is not None
    shown = views(data, 1, [4, 0])
    alone = data.labels(shown)
    rest = data.residual.rows(1, np.array([4, 0]))
    assert float(rest.abs().max()) > 0.01
    assert torch.equal(data.labels(shown, [4, 0], epoch=1), alone + rest)
    data.set_epoch(EPOCHS + 1)
    for samples in (np.array([4, 0]), torch.tensor([4, 0])):
        assert torch.equal(data.labels(shown, samples), alone + rest)
    assert torch.equal(
        corrected.labels(shown, [4, 0], epoch=1), corrected.data.labels(shown, [4, 0], epoch=1)
    )
    with pytest.raises(MismatchError, match="a sample for each of 2 views; got 1"):
        data.labels(shown, [4])
    with pytest.raises(MismatchError, match="samples below 6"):
        data.labels(shown, [4, 6])


def test_epochs_go_round_the_views_that_have_residuals(corrected: Condensed) -> None:
    data = load_condensed(corrected.data.folder)
    assert data.view_epochs == EPOCHS
    assert [data.shown_epoch(epoch) for epoch in range(5)] == [0, 1, 0, 1, 0]
    data.set_epoch(5)
    assert torch.equal(data[3]["view"], views(data, 1, [3])[0])
    collated = data.collator()([ViewKey(5, 3), ViewKey(2, 1)])
    expected = [
        data.labels(views(data, 0, [1]), [1], epoch=0),
        data.labels(views(data, 1, [3]), [3], epoch=1),
    ]
    # Keys of several epochs are ordered by epoch.
    assert torch.equal(collated["soft_labels"], torch.cat(expected))


def test_a_set_without_residuals_shows_every_epoch_its_own(finished: Condensed) -> None:
    data = finished.data
    assert data.residual is None and data.view_epochs is None and data.shown_epoch(7) == 7
    shown = views(data, 0, [1])
    assert torch.equal(data.labels(shown, [1]), data.labels(shown))
    assert isinstance(data.label_source, NetworkLabels)


def test_students_see_corrected_labels_of_these_views(
    corrected: Condensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {}
    train = comparing.train_student

    def spy(student: Any, data: Any, labels: Any, *rest: Any, **named: Any) -> Any:
        class Watched:
            name = labels.name

            def logits(self, shown: Batch) -> Any:
                seen.setdefault(type(labels).__name__, set()).add(shown.epoch)
                return labels.logits(shown)

        return train(student, data, Watched(), *rest, **named)

    monkeypatch.setattr(comparing, "train_student", spy)
    pipeline = corrected.pipeline
    student = replace(pipeline.config.student, seeds=(7,))
    comparison = Comparison(pipeline)
    comparison.config = replace(pipeline.config, student=student)
    comparison.row("generator", "chosen")
    # No residual is of other images: the generator labels them alone, each view anew.
    comparison.row("generator", "random")
    assert seen == {"CorrectedLabels": {0, 1}, "NetworkLabels": {0, 1, 2}}


def test_a_rate_is_chosen_with_corrected_labels(
    corrected: Condensed, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def choose(data: Any, source: Any, *rest: Any, view_epochs: Any, **named: Any) -> Any:
        found.append((type(source), view_epochs))
        return 0.5, {"0.5": 1.0}

    monkeypatch.setattr(comparing, "choose_rate", choose)
    comparison = Comparison(corrected.pipeline)
    comparison.config = replace(corrected.config, student=replace(corrected.config.student, lrs=(0.5, 0.25)))
    assert comparison.rate("generator") == 0.5
    assert found == [(CorrectedLabels, EPOCHS)]


def test_residuals_are_weighed_and_told(corrected: Condensed, tmp_path: Path) -> None:
    folder = corrected.data.folder
    facts = corrected.data.manifest.facts
    size = store_bytes(folder / "labels" / "residual")
    assert size == sum(path.stat().st_size for path in (folder / "labels" / "residual").iterdir())
    assert facts["residual"]["bytes"] == size
    assert facts["residual"] | {"fidelity": 0} == {
        "codec": "stored-fp32",
        "epochs": EPOCHS,
        "bytes": size,
        "fidelity": 0,
    }
    assert facts["residual"]["fidelity"][0]["agreement"] == 1.0
    assert facts["residual"]["fidelity"][0]["mse"] < 1e-6 < facts["projector"]["fidelity"][2]["mse"]
    weights = {each["name"]: each["bytes"] for each in facts["storage"]}
    assert weights["of it stored residuals"] == size
    adapter = sum(path.stat().st_size for path in (folder / "labels").glob("adapter_*"))
    assert weights["label generator (delta)"] == delta_bytes(folder) == adapter + size
    row = next(row for row in corrected.rows if (row.labels, row.images) == ("generator", "chosen"))
    assert row.label_bytes == adapter + size
    assert "stored beside it (stored-fp32), for the views of 2 epochs" in (folder / "README.md").read_text()
    page = corrected.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "what it leaves out",
        "with residuals for 12",
        "With residuals, stored as fp32",
        "of residuals",
    ):
        assert text in page, text
    lost = {line.label: line.value for line in describe(corrected).receipt.lost}
    assert lost["with residuals"] == "0.0 %"


def test_size_lists_residuals_apart(corrected: Condensed, capsys: pytest.CaptureFixture[str]) -> None:
    assert size_command(corrected.data.folder, json=True) == 0
    sizes = json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"]
    assert sizes["of it stored residuals"] == corrected.data.manifest.facts["residual"]["bytes"]


def test_the_student_command_corrects_labels_and_goes_round_the_views(
    corrected: Condensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    corrects = CorrectedLabels.logits

    def spy(labels: CorrectedLabels, shown: Batch) -> Any:
        asked.append(shown.epoch)
        return corrects(labels, shown)

    monkeypatch.setattr(CorrectedLabels, "logits", spy)
    settings = replace(corrected.config.student, fit=replace(corrected.config.student.fit, batch_size=8))
    shared: Any = {"teacher": None, "backbone": None, "seed": 0, "device": "cpu", "overwrite": False}
    train(corrected.data.folder, settings, tmp_path / "student", labels="generator", **shared)
    assert asked == [0, 1, 0]
    train(corrected.data.folder, settings, tmp_path / "hard", labels="hard", **shared)
    assert len(asked) == 3


def test_another_residual_keeps_the_generator(corrected: Condensed, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("the generator was trained again")

    monkeypatch.setattr("aerogel.condense.pipeline.train_generator", unexpected)
    before = corrected.pipeline.digest("generator")
    out = corrected.folder.parent / "other"
    shutil.copytree(corrected.folder, out)
    sources = tiny.sources()
    other = Pipeline(config("stored-vq4", 3), sources, out, overwrite=True)
    data = other.archive
    assert other.digest("generator") == before
    assert data.view_epochs == 3 and data.manifest.facts["residual"]["codec"] == "stored-vq4"
    names = {path.name for path in (data.folder / "labels" / "residual").iterdir()}
    assert names == {"store-00000.safetensors", "codebook.safetensors"}
    plain = Pipeline(tiny.config(), sources, out, overwrite=True)
    assert plain.digest("generator") == before
    assert plain.archive.residual is None and not (plain.archive.folder / "labels" / "residual").exists()


def test_a_killed_store_goes_on(
    corrected: Condensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(corrected.folder, out)
    shutil.rmtree(out / "residual")
    monkeypatch.setattr("aerogel.condense.storing.epochs_per_shard", lambda *_: 1)
    asked: list[int] = []
    make = storing.make_batch

    def failing(images: Any, labels: Any, shown: Any, epoch: int, *rest: Any) -> Batch:
        asked.append(epoch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return make(images, labels, shown, epoch, *rest)

    monkeypatch.setattr(storing, "make_batch", failing)
    three = config(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        store_residual(Pipeline(three, tiny.sources(), out))
    assert asked == [0, 1, 2] and not (out / "residual").exists()
    store_residual(Pipeline(three, tiny.sources(), out))
    # A batch ahead is asked for: the second epoch was not written yet.
    assert asked[3:5] == [1, 2]
    assert len(list((out / "residual").glob("store-*"))) == 3


def test_sources_are_compared_on_as_many_views_as_there_are(corrected: Condensed) -> None:
    data = corrected.data.training_set()
    teacher = NetworkLabels("teacher", corrected.pipeline.teacher.classifier)
    same = compare_sources(teacher, teacher, data, 2, "cpu")
    assert (same.samples, same.agreement, same.mse) == (12, 1.0, 0.0)
    assert compare_sources(teacher, teacher, data, 1000, "cpu").samples == 2000


def test_a_source_without_labels_leaves_none_out(corrected: Condensed) -> None:
    shown = batch(corrected.data, 0)
    teacher = NetworkLabels("teacher", corrected.pipeline.teacher.classifier)
    assert ResidualLabels(HardLabels(), teacher).logits(shown) is None
    assert ResidualLabels(teacher, HardLabels()).logits(shown) is None
    assert corrected.data.residual is not None
    assert CorrectedLabels(HardLabels(), corrected.data.residual).logits(shown) is None
    assert ResidualLabels(teacher, teacher).logits(shown).abs().max() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("codec", "epochs", "fault"),
    [
        (None, 2, "expected 1 or more beside a residual, else 0; got 2 beside none"),
        ("stored-vq4", 0, "got 0 beside stored-vq4"),
        ("stored-vq4", -1, "got -1 beside stored-vq4"),
        ("stored-pruned10+int8", 2, "residual: expected a codec of all classes and views"),
        ("stored-top2", 2, "residual: expected a codec of all classes and views"),
        ("stored-vqq", 2, "residual: expected a label codec"),
        ("int8", 2, "residual: expected a label codec"),
    ],
)
def test_a_wrong_residual_is_refused(codec: str | None, epochs: int, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        tiny.config(projector={"residual": codec, "residual_epochs": epochs})


def test_a_codec_for_more_classes_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuts 3 classes into 4 parts"):
        Pipeline(config("stored-pq4x2"), tiny.sources(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"epochs": 3}, "labels of 3 epochs"),
        ({"codec": "stored-int8"}, "stored-int8"),
        ({"codec": "stored-nothing"}, "stored-nothing"),
        ({"codec": 5}, "residual"),
        ({"epochs": 0}, "residual"),
        ({"epochs": "2"}, "residual"),
    ],
)
def test_residuals_at_odds_with_the_manifest_are_refused(
    corrected: Condensed, tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    folder = Path(shutil.copytree(corrected.data.folder, tmp_path / "set"))
    path = folder / "manifest.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("seal")
    data["facts"]["residual"].update(change)
    path.write_text(seal_text(data), encoding="utf-8")
    with pytest.raises(IntegrityError, match=fault):
        load_condensed(folder)
