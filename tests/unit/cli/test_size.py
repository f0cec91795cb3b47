"""Where the condensed set is."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.size import find_archive, size_command
from aerogel.errors import DataError


def test_a_set_is_itself_and_a_run_holds_one(tmp_path: Path) -> None:
    assert find_archive(tmp_path) == tmp_path
    (tmp_path / "archive").mkdir()
    assert find_archive(tmp_path) == tmp_path, "an unfinished archive is none"
    (tmp_path / "archive" / "manifest.json").touch()
    assert find_archive(tmp_path) == tmp_path / "archive"


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        size_command(tmp_path / "nowhere")
