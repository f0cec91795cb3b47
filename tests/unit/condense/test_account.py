"""The account of a run says what its files say, also where that is no praise."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import aerogel
from aerogel.condense.account import Run, describe, describe_receipt, open_run, write_accuracy
from aerogel.condense.api import Condensed
from aerogel.condense.comparison import Row
from aerogel.errors import DataError, IntegrityError
from aerogel.measure import Measurement, size_bytes
from aerogel.report import Receipt, ReceiptLine, render_report
from tests.unit.condense import tiny


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    found = tiny.sources()
    labels = ["generator", "teacher", "stored-fp16", "one-per-image", "hard"]
    config = tiny.config(student={"labels": labels, "random_baseline": True})
    folder = tmp_path_factory.mktemp("account") / "run"
    return aerogel.condense(found.train, test=found.test, config=config, out=folder, command="aerogel test")


@pytest.fixture(scope="module")
def run(result: Condensed) -> Run:
    return open_run(result.folder)


def line(receipt: Receipt, label: str) -> ReceiptLine:
    return next(each for each in (*receipt.paid, *receipt.saved, *receipt.lost) if each.label == label)


def with_accuracy(run: Run, ours: float, theirs: float) -> Run:
    def row(labels: str, value: float, size: int) -> Row:
        return Row(labels, "chosen", Measurement("accuracy", value, "%"), size, 0, 1e-3)

    return replace(run, rows=(row("generator", ours, 100), row("stored-fp16", theirs, 1200)))


def test_a_result_and_its_folder_give_the_same_page(result: Condensed) -> None:
    assert render_report(describe(result)) == render_report(describe(result.folder))


def test_the_rows_survive_the_file(result: Condensed, run: Run) -> None:
    assert run.rows == result.rows
    assert run.config == result.config


def test_bytes_are_those_on_disk(run: Run) -> None:
    archive = run.folder / "archive"
    assert run.delta_bytes == size_bytes(archive / "labels")
    assert run.set_bytes == run.delta_bytes + size_bytes(archive / "data")
    assert run.source_bytes == 3 * 24 * 8 * 8
    assert run.teacher_bytes == size_bytes(run.folder / "teacher.fp16.safetensors")


def test_at_break_even_labels_weigh_what_the_generator_weighs(run: Run) -> None:
    stored = run.find("stored-fp16")
    assert stored is not None
    epochs = run.config.student.fit.epochs
    assert run.even_epochs * stored.label_bytes / epochs == pytest.approx(run.delta_bytes)
    assert run.even_views == pytest.approx(run.even_epochs * run.facts["images"])
    assert replace(run, rows=()).view_bytes == 2 * 3, "two bytes for each class"


def test_the_receipt_holds_the_files_figures(run: Run) -> None:
    receipt = describe_receipt(run)
    assert {"teacher", "choosing the images", "label generator", "packing", "in all"} <= {
        each.label for each in receipt.paid
    }
    assert line(receipt, "the comparison").note.startswith("6 students")
    assert line(receipt, "images").note == "6 instead of 72"
    assert receipt.number == f"sha256 {run.data.manifest.digest[:16]}"


def test_points_lost_and_nothing_lost(run: Run) -> None:
    worse = describe_receipt(with_accuracy(run, 88.0, 90.5))
    assert line(worse, "to all labels stored").value == "2.5 points"
    better = describe_receipt(with_accuracy(run, 91.0, 90.5))
    assert line(better, "to all labels stored").value == "nothing"


def test_a_generator_heavier_than_stored_labels_saves_nothing(run: Run) -> None:
    stored = run.find("stored-fp16")
    assert stored is not None and stored.label_bytes < run.delta_bytes
    assert line(describe_receipt(run), "label bytes").value == "nothing"


def test_shipping_the_teacher_is_named_as_the_alternative(run: Run) -> None:
    found = line(describe_receipt(run), "against the teacher")
    assert "for the teacher itself in fp16" in found.note
    assert (found.value == "nothing") == (run.teacher_bytes <= run.delta_bytes)


def test_without_students_there_is_still_an_account(run: Run) -> None:
    bare = describe(replace(run, rows=()))
    assert next(section.title for section in bare.sections) == "The images"
    assert "Accuracy against bytes" not in [section.title for section in bare.sections]
    assert "72 images of 3 classes became 6" in bare.lede
    assert "</html>" in render_report(bare)


def test_accuracies_are_written_with_one_decimal() -> None:
    assert write_accuracy(Measurement("a", 75.83, "%", 4.41, "std", 3)) == "75.8 ± 4.4 %"
    assert write_accuracy(Measurement("a", 75.0, "%")) == "75.0 %"


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finished run"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [("result.json", "{"), ("result.json", '{"rows": [{"labels": 1}]}'), ("timings.json", "[1]")],
)
def test_a_damaged_record_is_refused(run: Run, file: str, content: str, tmp_path: Path) -> None:
    place = Path(shutil.copytree(run.folder, tmp_path / "copy"))
    (place / file).write_text(content, encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"result\.json and timings\.json"):
        open_run(place)


def test_the_command_is_repeated(run: Run) -> None:
    report = describe(run)
    assert report.command == "aerogel test"
    assert report.environment["torch"] == run.data.manifest.versions["torch"]
    assert json.loads(json.dumps(report.config))["type"] == "condense"


def with_projector(run: Run, projector: dict[str, Any]) -> Run:
    data = copy.copy(run.data)
    data.manifest = replace(data.manifest, facts={**run.facts, "projector": projector})
    return replace(run, data=data)


def test_what_the_codec_changed_is_on_the_receipt_where_it_was_measured(run: Run) -> None:
    label, known = "to the adapter's codec", run.facts["projector"]
    for agreement, value in ((0.975, "2.50 %"), (1.0, "nothing")):
        each = {**known["codec_fidelity"][-1], "agreement": agreement}
        found = with_projector(run, {**known, "codec": "int4", "codec_fidelity": [each]})
        lost = line(describe_receipt(found), label)
        assert lost.value == value and "int4" in lost.note
    older = {name: value for name, value in known.items() if "codec" not in name}
    labels = [each.label for each in describe_receipt(with_projector(run, older)).lost]
    assert label not in labels and "labels that differ" in labels
