"""Files that no run wrote are never in danger, and methods do not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.core.folders import seal_folder
from aerogel.errors import FolderConflictError, FolderExistsError
from aerogel.slim.api import Slimmed
from aerogel.slim.run_folder import require_method, require_run_folder


@pytest.mark.parametrize("name", ["recipe.yaml", "result.json", "timings.json", "report.html", "model"])
def test_files_of_the_users_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match=f"files that no run wrote: {name}.*--out"):
        require_run_folder(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match="got a file"):
        require_run_folder(tmp_path / "run")


@pytest.mark.parametrize("stage", ["embedding-plan", "whole-plan", "embedding-plan.partial"])
def test_the_folder_of_a_run_is_gone_on_with(tmp_path: Path, stage: str) -> None:
    (tmp_path / stage).mkdir()
    (tmp_path / "recipe.yaml").write_text("ours", encoding="utf-8")
    require_run_folder(tmp_path)


def test_new_and_empty_folders_and_those_with_other_files_are_taken(tmp_path: Path) -> None:
    require_run_folder(tmp_path / "new")
    require_run_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    require_run_folder(tmp_path)


def test_a_model_of_another_method_is_refused(finished: Slimmed, tmp_path: Path) -> None:
    require_method(tmp_path, ["output-aligning"], "one-step")
    require_method(finished.folder, ["bottleneck-aligning", "embedding-aligning"], "alternate")
    with pytest.raises(FolderConflictError, match=r"method one-step .*another method"):
        require_method(finished.folder, ["output-aligning"], "one-step")
    with pytest.raises(FolderConflictError, match="another method"):
        require_method(finished.folder, ["embedding-aligning"], "half")
    (tmp_path / "model").mkdir()
    seal_folder(tmp_path / "model", kind="slim-model", config={}, facts={})
    with pytest.raises(FolderConflictError):
        require_method(tmp_path, ["output-aligning"], "one-step")
