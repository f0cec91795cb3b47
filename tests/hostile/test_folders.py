"""Hostile sealed folders, and the records of stages that were cut short."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aerogel.core.stages import Stage, run_stage
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.manifests import hostile_manifests
from tests.hostile.mutate import Mutation, cuts, edited, hostile_json, misplaced

RECORD = "stage.partial/.stage.json"


def finish(folder: Path) -> Any:
    """Finish a stage that was cut short, in a copy."""
    work = folder.parent.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work, symlinks=True)

    def build(place: Path) -> dict[str, Any]:
        (place / "result.txt").write_text("done")
        return {"figure": 1}

    manifest = run_stage(Stage(work / "stage", "test", {"a": 1}, {}), build)
    return manifest.to_dict()


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("stages")

    def stop(work: Path) -> dict[str, Any]:
        raise KeyboardInterrupt

    for name in ("one", "other"):
        (place / "box" / name).mkdir(parents=True)
        with pytest.raises(KeyboardInterrupt):
            run_stage(Stage(place / "box" / name / "stage", "test", {"a": 1}, {}), stop)
    return Subject(place / "box" / "one", place / "box" / "other", finish)


STAGES = [
    replace(each, about=("stage.partial",))
    for each in [
        *cuts(RECORD),
        *(each for each in misplaced(RECORD) if "pipe" not in each.name),
        *hostile_json(RECORD),
        edited("facts-number", RECORD, lambda data: data.update(facts=5)),
        edited("facts-list", RECORD, lambda data: data.update(facts=["figure"])),
        edited("fingerprint", RECORD, lambda data: data.update(fingerprint="0" * 64)),
        edited("fingerprint-list", RECORD, lambda data: data.update(fingerprint=[])),
        edited("identity", RECORD, lambda data: data.update(fingerprint="0", identity=5)),
    ]
]


@pytest.mark.parametrize("change", offer(STAGES))
def test_a_mutated_record_is_refused_or_the_stage_ends_the_same(
    change: Mutation, stages: Subject, tmp_path: Path
) -> None:
    judge(stages, change, tmp_path)


PLAIN = [
    *(each for each in hostile_manifests("test") if not each.name.endswith("facts-none")),
    *cuts("result.txt", (0.0, 0.5)),
    *misplaced("result.txt"),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from aerogel.core.folders import seal_folder, verify_folder

    place = tmp_path_factory.mktemp("folders")
    for name in ("one", "other"):
        (place / name).mkdir()
        (place / name / "result.txt").write_text(f"{name} result")
        seal_folder(place / name, kind="test", config={"a": 1}, facts={"b": [1.5]})
    return Subject(place / "one", place / "other", lambda folder: verify_folder(folder, "test").to_dict())


@pytest.mark.parametrize("change", offer(PLAIN))
def test_a_mutated_folder_is_refused_or_is_the_same(
    change: Mutation, folders: Subject, tmp_path: Path
) -> None:
    judge(folders, change, tmp_path)
