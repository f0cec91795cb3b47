"""The folder of a slimming: the stages' folders, which guard themselves, and a few loose files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aerogel.core.manifests import MANIFEST_NAME, read_manifest
from aerogel.core.staging import TIMINGS
from aerogel.errors import FolderConflictError, FolderExistsError, compose

RECIPE = "recipe.yaml"
RESULT = "result.json"
REPORT = "report.html"
MODEL = "model"
EXHIBITS = "exhibits"

PLAN = "plan.json"
SCORES = "scores.safetensors"
WEIGHTS = "encoder.safetensors"

_ALIGNING = "-aligning"
_LOOSE = (RECIPE, RESULT, TIMINGS, REPORT)
_FIRST = ("embedding-rotation", "embedding-plan", "whole-rotation", "whole-plan")


def require_run_folder(folder: Path) -> None:
    """Check that a slimming in ``folder`` would replace no file that a run did not write.

    Raises:
        FolderExistsError: ``folder`` is a file, or holds such files and no stage of a run.
    """
    stages = [name for first in _FIRST for name in (first, f"{first}.partial")]
    if any((folder / name).is_dir() for name in stages):
        return
    foreign = [name for name in (*_LOOSE, MODEL) if (folder / name).exists()]
    if foreign or folder.is_file():
        raise FolderExistsError(
            compose(
                f"an empty folder or one of an earlier slimming at {folder}",
                f"files that no run wrote: {', '.join(foreign)}" if foreign else "a file",
                "choose another folder (--out)",
            )
        )


def require_method(folder: Path, stages: Sequence[str], method: str) -> None:
    """Check that a finished model in ``folder`` comes from these stages of aligning, and from no others.

    Stages that it did not come from would not be in the way before all work was done.

    Raises:
        FolderConflictError: it comes from others.
        IntegrityError: its manifest is damaged.
    """
    if not (folder / MODEL / MANIFEST_NAME).is_file():
        return
    inputs = read_manifest(folder / MODEL).facts.get("inputs", {})
    if set(stages) != {name for name in inputs if name.endswith(_ALIGNING)}:
        raise FolderConflictError(
            compose(
                f"a folder made by the method {method} at {folder}",
                "a finished slimming by another method",
                "use the same method, choose another folder, or allow overwriting it",
            )
        )
