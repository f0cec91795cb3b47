"""`aerogel condense`: the whole path, twice, in pieces, and with every mistake a user makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import aerogel
from aerogel.cli import main
from tests.cli.runs import tiny_settings


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_a_set_a_report_and_a_recipe(run: Path) -> None:
    data = aerogel.load_condensed(run / "archive")
    assert len(data) == 10
    assert "RECEIPT" in (run / "report.html").read_text(encoding="utf-8").upper()
    assert yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["ipc"] == 1
    assert data.manifest.command.startswith("aerogel condense digits --ipc 1 --out ")


def test_again_changes_nothing_and_ends_with_one_line_of_json(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {name: data for name, data in files_of(run).items() if name != "timings.json"}
    assert main(["condense", "--recipe", str(run / "recipe.yaml"), "--out", str(run), "--json"]) == 0
    again = files_of(run)
    assert {name: again[name] for name in kept if name != "report.html"} == {
        name: data for name, data in kept.items() if name != "report.html"
    }
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    found = json.loads(line)
    assert found["ipc"] == 1 and found["archive"] == str(run / "archive")
    assert {row["labels"] for row in found["rows"]} == {"generator", "stored-fp16", "hard"}
    for word in ("paid", "saved", "lost", "label generator", found["report"]):
        assert word in said.err


def test_other_settings_in_the_same_folder_are_refused_before_any_work(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = files_of(run)
    more = tiny_settings("teacher.width=12")
    assert main(["condense", "digits", "--ipc", "1", "--out", str(run), *more]) == 2
    said = capsys.readouterr().err
    assert "width is 8 there and 12 here" in said and "Traceback" not in said
    assert files_of(run) == kept


def test_a_stage_alone_stops_there_and_the_next_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["digits", "--ipc", "1", "--out", "steps", *tiny_settings("teacher.fit.epochs=1")]
    assert main(["condense", "teacher", *words, "--json"]) == 0
    assert sorted(path.name for path in Path("steps").iterdir() if path.is_dir()) == ["teacher"]
    teacher = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert teacher["facts"]["test_accuracy"]["unit"] == "%"
    assert main(["condense", "select", *words, "--json"]) == 0
    assert sorted(path.name for path in Path("steps").iterdir() if path.is_dir()) == ["selection", "teacher"]
    assert json.loads(capsys.readouterr().out)["facts"]["images"] == 10


def test_pack_opens_what_is_finished(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["digits", "--ipc", "1", "--out", str(run), *tiny_settings(), "--json"]
    assert main(["condense", "generator", *words]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["trained_parameters"] > 0
    assert main(["condense", "pack", *words]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert packed["digest"] == aerogel.load_condensed(run / "archive").manifest.digest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["condnse"], 'Did you mean "condense"?'),
        (["condense", "digits", "--icp", "1"], "Did you mean --ipc?"),
        (["condense", "digits", "--ipc", "ten"], "--ipc"),
        (["condense", "digits", "another"], "another"),
        (["condense"], "neither DATA nor a recipe"),
        (["condense", "digits", "--ipc", "0"], "ipc: expected a number above 0; got 0"),
        (["condense", "digits", "--set", "student.widht=3"], "did you mean 'width'?"),
        (["condense", "digits", "--set", "ipc"], "--set key.sub=value"),
        (["condense", "--recipe", "digist"], "did you mean 'digits'?"),
        (["condense", "no/such/folder"], "no/such/folder"),
        (["condense", "digits", "--device", "cua"], "cua"),
        (["report", "nowhere"], "finished run"),
        (["condense", "verify", "nowhere"], "nowhere"),
        (["condense", "eval", "nowhere", "digits"], "nowhere"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert expected in said.err and said.err.startswith("aerogel: ")
    assert "Traceback" not in said.err and said.out == ""
    assert not any(path.is_file() for path in Path().rglob("*")), "a mistake leaves nothing behind"


def test_all_mistakes_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--ipc", "0", "--set", "teacher.fit.epochs=many", "--set", "student.widht=3"]
    assert main(["condense", "digits", *wrong]) == 2
    said = capsys.readouterr().err
    assert "3 mistakes" in said
    assert "teacher.fit.epochs" in said and "student.widht" in said and "ipc: expected" in said


def test_files_that_no_run_wrote_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine", "recipe.yaml").write_text("mine", encoding="utf-8")
    assert main(["condense", "digits", "--out", "mine"]) == 2
    assert "no run wrote: recipe.yaml" in capsys.readouterr().err
    assert files_of(Path("mine")) == {"recipe.yaml": b"mine"}
