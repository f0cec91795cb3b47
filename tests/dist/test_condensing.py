"""Two processes condense a set as one does: they share the work, one writes, and a failure ends both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense import teacher as teacher_module
from aerogel.condense.api import condense
from aerogel.condense.run_folder import RECIPE, RESULT
from aerogel.core.folders import verify_folder
from aerogel.core.manifests import read_manifest
from aerogel.errors import RankError
from tests.dist.group import run_group
from tests.dist.test_alignment import join
from tests.unit.condense import tiny

# Sums of float32 in another order; adapter and stored labels are rounded to float16, to one part in 2,000.
CLOSE_LOSS, CLOSE = 1e-5, 1e-3
CHANGES: dict[str, Any] = {
    "teacher": {"held_out": 0.25},
    "projector": {"target_epochs": 2, "tune_epochs": 3, "tune_target_epochs": 2, "weak_teachers": 2},
    "student": {"labels": ["generator", "stored-fp16", "teacher", "hard"], "random_baseline": True},
}

SHORT: dict[str, Any] = {
    "projector": {"tune_epochs": 0, "tune_target_epochs": 0},
    "student": {"labels": ["hard"], "random_baseline": False},
}


def run(out: Path, **changes: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    data = tiny.sources()
    found = condense(data.train, test=data.test, config=tiny.config(**{**CHANGES, **changes}), out=out)
    views = torch.linspace(0.0, 1.0, 2 * 64).view(2, 1, 8, 8)
    return {**found.to_dict(), "labels": found.labels(views).tolist(), "leads": found.pipeline.leads}


def on_rank(out: Path) -> dict[str, Any]:
    """Run as one process does, after two runs that are refused."""
    join()
    taken = out.with_name("taken")
    (taken / "selection").mkdir(parents=True, exist_ok=True)
    (taken / "selection" / "mine.txt").write_text("x", encoding="utf-8")
    refused = [refuse(out, seed=int(os.environ["RANK"])), refuse(taken)]
    return {**run(out), "refused": refused}


def refuse(out: Path, **changes: Any) -> str:
    try:
        run(out, **changes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def read_facts(out: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of every sound folder below ``out``."""
    folders = sorted(path.parent for path in out.rglob("manifest.json"))
    for folder in folders:
        verify_folder(folder)
    names = ("fingerprint", "inputs", "probe", "teacher", "projector", "source")
    return {
        folder.relative_to(out).as_posix(): {
            key: value for key, value in read_manifest(folder).facts.items() if key not in names
        }
        for folder in folders
    }


def require_close(found: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        assert set(found) == set(wanted), where
        for key in wanted:
            require_close(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for index, each in enumerate(wanted):
            require_close(found[index], each, f"{where}[{index}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=CLOSE, abs=CLOSE), where
    else:
        assert found == wanted, where


def test_two_processes_equal_one(tmp_path: Path) -> None:
    wanted = run(tmp_path / "alone")
    found = run_group(2, on_rank, tmp_path / "together")
    assert [each["leads"] for each in found] == [True, False]
    facts = [read_facts(tmp_path / name) for name in ("together", "alone")]
    assert {"teacher", "selection", "generator", "archive", "labels/stored-fp16"} <= set(facts[1])
    require_close(*facts, "facts")
    for name in ("teacher", "generator"):
        assert facts[0][name]["losses"] == pytest.approx(facts[1][name]["losses"], rel=CLOSE_LOSS)
    for each in found:
        assert "processes that train the same" in each["refused"][0]
        require_close(each["labels"], wanted["labels"], "labels")
        assert each["rows"] == found[0]["rows"]
    first, second = (each["refused"][1] for each in found)
    assert first.startswith("FolderExistsError")
    assert second.startswith(RankError.__name__) and "FolderExistsError" in second
    written = [
        sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*"))
        for name in ("together", "alone")
    ]
    assert written[0] == written[1]
    assert (tmp_path / "together" / RECIPE).is_file() and (tmp_path / "together" / RESULT).is_file()


def fail_on_rank(out: Path) -> str:
    """Break the second process in the middle of the teacher's training; return what the first is told."""
    join()
    real = teacher_module.make_batch

    def break_down(images: Any, labels: Any, views: Any, epoch: int, *rest: Any) -> Any:
        if epoch == 2 and os.environ["RANK"] == "1":
            raise MemoryError("broken on purpose")
        return real(images, labels, views, epoch, *rest)

    teacher_module.make_batch = break_down
    try:
        run(out, **SHORT)
    except RankError as error:
        Path(out, "told.txt").write_text(str(error), encoding="utf-8")
        raise
    return "finished"


def test_a_process_that_ends_ends_the_other_with_a_clear_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(AssertionError, match="broken on purpose"):
        run_group(2, fail_on_rank, out)
    assert "look at the error of the process that ended first" in (out / "told.txt").read_text("utf-8")
    assert not (out / "teacher").exists() and (out / "teacher.partial").is_dir()
    assert run(out, **SHORT)["rows"], "the same call goes on, also alone"
