"""The folder of a run: the stages' folders, which guard themselves, and a few loose files beside them."""

from __future__ import annotations

from pathlib import Path

from aerogel.core.staging import TIMINGS
from aerogel.errors import FolderExistsError, compose

RECIPE = "recipe.yaml"
RESULT = "result.json"
REPORT = "report.html"
TEACHER_WEIGHED = "teacher.fp16.safetensors"

_LOOSE = (RECIPE, RESULT, TIMINGS, TEACHER_WEIGHED, REPORT)
_STAGES = ("teacher", "teacher.partial")


def require_run_folder(folder: Path) -> None:
    """Check that a run in ``folder`` would replace no file that a run did not write.

    Raises:
        FolderExistsError: ``folder`` is a file, or holds such files and no stage of a run.
    """
    if any((folder / name).is_dir() for name in _STAGES):
        return
    foreign = [name for name in _LOOSE if (folder / name).exists()]
    if foreign or folder.is_file():
        raise FolderExistsError(
            compose(
                f"an empty folder or one of an earlier run at {folder}",
                f"files that no run wrote: {', '.join(foreign)}" if foreign else "a file",
                "choose another folder (--out)",
            )
        )
