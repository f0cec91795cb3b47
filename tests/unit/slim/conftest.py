"""Photos, and one finished tiny run for all tests that only look at it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aerogel.slim.api import Slimmed

# Imports wait until a fixture is used: pytest reads this file before the environment of the tests is set.


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of six photos that nobody changes."""
    from tests.unit.slim.runs import write_photos

    return write_photos(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Slimmed:
    """Return a run that nobody changes."""
    from tests.unit.slim.runs import run

    return run(photos, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def folder(finished: Slimmed, tmp_path: Path) -> Path:
    """Return a copy of the finished run's folder, to change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def no_clock(finished: Slimmed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each run the latencies, which are measured with the exhibits' own tests."""
    from aerogel.core.manifests import read_manifest
    from aerogel.measure import Measurement

    known = Measurement.from_dict(read_manifest(finished.folder / "exhibits").facts["latency"]["before"])
    monkeypatch.setattr("aerogel.slim.exhibits.time_encoder", lambda model: known)
