"""One finished run for all tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli import main
from tests.cli.runs import tiny_settings


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run everything once, tiny; tests only read what it wrote."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["condense", "digits", "--ipc", "1", "--out", str(folder), *tiny_settings()]) == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "cache"))
