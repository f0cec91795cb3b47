"""`aerogel slim` and `slim plan`, as a user at the command line meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.cli.program import main
from aerogel.core.files import write_bytes_atomic
from aerogel.slim.plan import load_plan
from tests.unit.slim.runs import teacher, write_photos

TINY = ("--held-out=2", "--epochs=1", "--device=cpu", "--set=score.photos=2", "--set=align.batch_size=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a saved model and photos, one of them broken."""
    found = tmp_path_factory.mktemp("slim")
    teacher().save_pretrained(found / "sam")
    write_bytes_atomic(write_photos(found / "photos") / "bad.jpg", b"no photo")
    return found


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """Return the folder of a finished run."""
    words = ["slim", str(place / "sam"), "--images", str(place / "photos"), "--out", str(place / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main([*words, *TINY]) == 0
    return place / "run"


def words(place: Path, *more: str) -> list[str]:
    return [str(place / "sam"), "--images", str(place / "photos"), *TINY, *more]


def test_a_run_ends_with_the_receipt_and_the_place_of_the_model(
    run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slim", *words(place, "--out", str(run))]) == 0
    said = capsys.readouterr()
    for told in ("The receipt", "paid", "saved", "lost", "linear MACs", "agreement, stored point"):
        assert told in said.out
    assert said.out.splitlines()[-1] == f"slim model  {run / 'model'}"
    assert said.out.splitlines()[-2].split() == ["report", str(run / "report.html")]
    assert "6 photos; left out" in said.err and "bad.jpg: not an image" in said.err
    assert "device: cpu" in said.err


def test_json_is_the_last_and_only_line_on_stdout(
    run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slim", "--json", *words(place, "--out", str(run))]) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    found = json.loads(line)
    assert found["model"] == str(run / "model") and found["folder"] == str(run)
    assert found["report"] == str(run / "report.html")
    assert found["after"]["hidden_size"] == 8 and found["photos"]["left_out_count"] == 1
    assert "The receipt" in said.err


def test_the_recipe_of_a_run_repeats_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slim", "--recipe", str(run / "recipe.yaml"), "--out", str(run)]) == 0
    assert str(run / "model") in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(
    run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slim", *words(place, "--out", str(run), "--ratio", "0.25")]) == 2
    said = capsys.readouterr()
    assert "widths.embedding is 8 there and 12 here" in said.err and said.out == ""


def test_the_report_command_knows_the_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"report  {page}\n"
    text = page.read_text(encoding="utf-8")
    for told in ("Masks before and after", "Photos left out", "bad.jpg"):
        assert told in text


def test_a_plan_is_shown_and_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["slim", "plan", *words(place, "--criterion", "magnitude")]) == 0
    said = capsys.readouterr().out
    assert "channels of the residual stream" in said and said.splitlines()[-1] == "plan  plan.json"
    assert load_plan("plan.json").widths["embedding"] == 8
    assert main(["slim", "plan", *words(place)]) == 2
    assert "expected nothing at plan.json" in capsys.readouterr().err
    assert main(["slim", "plan", "--json", "--overwrite", *words(place)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == load_plan("plan.json").digest
    assert found["after"]["mlp_dim"] == 16 and found["before"]["mlp_dim"] == 32


@pytest.mark.parametrize("verb", [["slim"], ["slim", "plan"]])
def test_mistakes_are_told_in_a_sentence(
    verb: list[str],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    good = words(place)
    cases = (
        ([], "the model to slim"),
        ([good[0]], "--images FOLDER"),
        ([*good, "--ratio", "1"], "ratio: expected a share"),
        ([*good, "--ratio", "0.95"], "leaves at least 2 of 16"),
        ([*good, "--heads", "7"], "1 to 2 heads"),
        ([*good, "--criterion", "magnitud"], "did you mean 'magnitude'"),
        ([*good[:3], "--held-out", "6", "--device", "cpu"], "more than 6 photos"),
        ([*good, "--limit", "40"], "40 usable photos"),
        ([*good[:3], "--device", "gpu"], "as device"),
        (["nothing-here", *good[1:]], "'nothing-here', which does not exist"),
        ([good[0], "--images", "nothing-here", *TINY], "correct the path"),
    )
    for given, told in cases:
        assert main([*verb, *given]) == 2, told
        said = capsys.readouterr()
        assert said.err.splitlines()[-1].startswith("aerogel: expected") or "mistake" in said.err
        assert told in said.err and "Traceback" not in said.err and said.out == ""
    assert list(tmp_path.iterdir()) == []
