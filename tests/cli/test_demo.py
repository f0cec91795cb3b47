"""`aerogel demo`: what ships through the same paths, here with the settings of a run of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli import demo, main
from aerogel.cli.settings import Settings, gather_config
from aerogel.condense.config import CondenseConfig
from aerogel.parallel.sampling import Request
from tests.cli.runs import TINY


def test_the_demo_ends_with_the_path_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gather_tiny(data: str | None, settings: Settings) -> CondenseConfig:
        assert (data, settings.recipe) == (None, "digits")
        return gather_config("digits", Settings(ipc=1, device="cpu", sets=TINY))

    monkeypatch.setattr(demo, "gather_config", gather_tiny)
    monkeypatch.setattr(demo, "choose_request", lambda: Request(classes=("0", "7"), steps=3))
    assert main(["demo", "--out", "shown"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["report", str(Path("shown/report.html").resolve())]
    assert Path("shown/report.html").is_file()
    assert "bit for bit" in Path("shown/sample/report.html").read_text(encoding="utf-8")
