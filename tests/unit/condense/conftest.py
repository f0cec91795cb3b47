"""One finished tiny run for all tests that only look at it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

# Imports wait until a fixture is used: pytest reads this file before the environment of the tests is set.


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Condensed:
    """Return a run that nobody changes."""
    from aerogel.condense.api import condense
    from tests.unit.condense import tiny

    data = tiny.sources()
    out = tmp_path_factory.mktemp("finished") / "run"
    return condense(data.train, test=data.test, config=tiny.config(), out=out)


@pytest.fixture
def archive(finished: Condensed, tmp_path: Path) -> Path:
    """Return a copy of the run's condensed set, to damage."""
    return Path(shutil.copytree(finished.data.folder, tmp_path / "set"))
