"""A run replaces only what a run wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.condense.run_folder import RECIPE, RESULT, require_run_folder
from aerogel.errors import FolderExistsError


def test_new_empty_and_own_folders_are_fine(tmp_path: Path) -> None:
    require_run_folder(tmp_path / "new")
    require_run_folder(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"kept")
    require_run_folder(tmp_path)
    (tmp_path / "teacher.partial").mkdir()
    (tmp_path / RECIPE).write_text("ipc: 1\n")
    require_run_folder(tmp_path)


def test_foreign_files_and_plain_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text("mine\n")
    (tmp_path / RESULT).write_text("{}\n")
    with pytest.raises(FolderExistsError, match=r"no run wrote: recipe\.yaml, result\.json; "):
        require_run_folder(tmp_path)
    with pytest.raises(FolderExistsError, match="got a file"):
        require_run_folder(tmp_path / RECIPE)
