"""What works on a condensed set: weigh, verify, train from it, score, report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aerogel.cli import main
from aerogel.measure import size_bytes
from tests.unit.zoo.fake_hub import FakeHub


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_size_weighs_what_is_on_disk(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["condense", "size", str(run), "--json"]) == 0
    found = last_json(capsys)["bytes"]
    assert isinstance(found, dict)
    assert found["the whole folder"] == size_bytes(run / "archive")
    parts = ("images", "label generator (delta)", "manifest and card")
    assert sum(found[name] for name in parts) == found["the whole folder"]
    assert found["label generator (delta)"] == size_bytes(run / "archive" / "labels")


def test_a_sound_run_is_verified(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["condense", "verify", str(run), "--json"]) == 0
    assert last_json(capsys) == {"folder": str(run), "ok": True, "problems": {}}


@pytest.mark.parametrize("file", ["archive/labels/adapter_model.safetensors", "teacher/teacher.json"])
def test_a_flipped_byte_is_found(
    run: Path, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    raw = bytearray((copy / file).read_bytes())
    raw[-1] ^= 1
    (copy / file).write_bytes(raw)
    assert main(["condense", "verify", str(copy), "--json"]) == 1
    found = last_json(capsys)
    assert found["ok"] is False
    assert Path(file).name in str(found["problems"])


def test_a_student_is_trained_resumed_and_scored(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["condense", "student", str(run), "--out", "student", "--epochs", "2", "--set", "width=8"]
    assert main([*words, "--set", "depth=2", "--json"]) == 0
    first = last_json(capsys)
    assert first["epochs"] == 2 and first["labels"] == "generator"
    weights = Path("student/student.safetensors").read_bytes()
    assert main([*words, "--set", "depth=2", "--json"]) == 0
    assert last_json(capsys) == first
    assert Path("student/student.safetensors").read_bytes() == weights
    assert main([*words, "--set", "depth=1"]) == 2
    assert "depth is 2 there and 1 here" in capsys.readouterr().err
    assert main(["condense", "eval", "student", "digits", "--json"]) == 0
    accuracy = last_json(capsys)["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["samples"] == 360


def test_a_teacher_labels_a_student(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "condense",
        "student",
        str(run / "archive"),
        "--out",
        "taught",
        "--epochs",
        "1",
        "--set",
        "width=4",
    ]
    assert main([*words, "--labels", "teacher"]) == 2
    assert "--teacher FOLDER" in capsys.readouterr().err
    assert main([*words, "--labels", "teacher", "--teacher", str(run / "teacher"), "--json"]) == 0
    assert last_json(capsys)["labels"] == "teacher"


def test_eval_of_the_teacher_gives_the_recorded_accuracy(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["condense", "eval", str(run / "teacher"), "digits", "--json"]) == 0
    recorded = json.loads((run / "teacher" / "manifest.json").read_text(encoding="utf-8"))["facts"][
        "test_accuracy"
    ]
    accuracy = last_json(capsys)["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["value"] == recorded["value"]


def test_push_sends_the_set_of_a_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = FakeHub(tmp_path / "hub", tmp_path / "snapshots").install(monkeypatch)
    assert main(["condense", "push", str(run), "anna/tiny", "--private", "--json"]) == 0
    found = last_json(capsys)
    assert (found["address"], found["repo"]) == ("https://hub.test/datasets/anna/tiny", "anna/tiny")
    assert hub.asked("create")[0]["private"] is True
    assert size_bytes(hub.root / "anna/tiny/labels") == size_bytes(run / "archive" / "labels")
    assert main(["condense", "push", str(run), "tiny"]) == 2
    assert "user/name" in capsys.readouterr().err


def test_report_writes_beside_the_run_or_where_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--out", "page.html", "--json"]) == 0
    assert last_json(capsys)["report"] == str(Path("page.html").resolve())
    assert "</html>" in Path("page.html").read_text(encoding="utf-8")
    assert main(["report", str(run)]) == 0, "the run's own report is written anew"
    assert main(["report", str(run), "--out", "page.html"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["report", str(run), "--out", "page.html", "--overwrite"]) == 0
    assert main(["report", str(run), "--out", "."]) == 2


def test_classes_are_learnt_in_groups(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    words = ["condense", "continual", str(copy), "--steps", "2", "--labels", "hard", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert found["classes"] == [5, 10]
    assert [(lane["labels"], lane["images"]) for lane in found["lanes"]] == [
        ("hard", "chosen"),
        ("hard", "random"),
    ]
    assert "10 classes" in said.err
    assert "Learning classes step by step" in (copy / "report.html").read_text(encoding="utf-8")
    assert main([*words[:4], "11"]) == 2
    assert "from 2 to 10 steps" in capsys.readouterr().err
