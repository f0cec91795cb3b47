"""`aerogel demo`: what ships through the same paths, here with the settings of a run of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.cli import demo, main
from aerogel.cli.settings import Settings, gather_config
from aerogel.cli.slimming import SlimSettings
from aerogel.condense.config import CondenseConfig
from aerogel.parallel.sampling import Request
from aerogel.slim.config import SlimConfig
from tests.cli.runs import TINY
from tests.unit.slim.runs import config, teacher, write_photos


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gather_tiny(data: str | None, settings: Settings) -> CondenseConfig:
        assert (data, settings.recipe) == (None, "digits")
        return gather_config("digits", Settings(ipc=1, device="cpu", sets=TINY))

    def gather_slim_tiny(model: str | None, settings: SlimSettings) -> SlimConfig:
        assert (model, settings.recipe) == (None, "sam-nano-r10")
        return config(model="sam", images="photos")

    teacher().save_pretrained(tmp_path / "sam")
    write_photos(tmp_path / "photos")
    monkeypatch.setattr(demo, "gather_config", gather_tiny)
    monkeypatch.setattr(demo, "gather_slim_config", gather_slim_tiny)
    monkeypatch.setattr(demo, "choose_request", lambda: Request(classes=("0", "7"), steps=3))


def test_the_demo_ends_with_the_path_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "shown"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].split() == ["report", str(Path("shown/report.html").resolve())]
    assert Path("shown/report.html").is_file()
    assert "bit for bit" in Path("shown/sample/report.html").read_text(encoding="utf-8")
    assert "Masks before and after" in Path("shown/slim/report.html").read_text(encoding="utf-8")
    parts = [said.index(part) for part in ("aerogel/fashion-unet", "slim model", "condensed set")]
    assert parts == sorted(parts)


def test_a_finished_demo_is_kept_and_ends_with_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "shown"]) == 0
    made = {path: path.stat().st_mtime_ns for path in Path("shown").rglob("*.safetensors")}
    capsys.readouterr()
    assert main(["demo", "--out", "shown", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert list(found) == ["sample", "slim", "condense"]
    assert (found["sample"]["exact"], found["sample"]["folder"]) == (True, "shown/sample")
    assert (found["slim"]["model"], found["condense"]["archive"]) == ("shown/slim/model", "shown/archive")
    assert {path: path.stat().st_mtime_ns for path in made} == made
