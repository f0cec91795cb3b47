"""A run without the packages of the report still ends well."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel import report
from aerogel.cli.condense import write_page
from aerogel.cli.screen import Screen
from aerogel.errors import MissingDependencyError
from aerogel.report import Report


def test_the_page_is_written(tmp_path: Path) -> None:
    page = write_page(Report("A title"), tmp_path / "report.html", Screen())
    assert page == tmp_path / "report.html" and "A title" in page.read_text(encoding="utf-8")


def test_a_missing_package_is_told_and_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(report: Report, path: Path) -> Path:
        raise MissingDependencyError('pip install "aerogel[report]"')

    monkeypatch.setattr(report, "write_report", refuse, raising=False)
    assert write_page(Report("A title"), tmp_path / "report.html", Screen()) is None
    said = capsys.readouterr().out
    assert "aerogel[report]" in said and f"aerogel report {tmp_path}" in said
