"""Stages are run once and timed; of several processes one leads, and the others do what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aerogel.core.crew import Crew
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.core.staging import TIMINGS, Staging
from aerogel.errors import FolderConflictError, RankError


def write(work: Path) -> Mapping[str, Any]:
    (work / "x.txt").write_text("x", encoding="utf-8")
    return {"fact": 1}


def test_a_stage_in_a_folder_below_is_timed_by_its_whole_name(tmp_path: Path) -> None:
    Staging(tmp_path, 0).run("labels/small", "test-stage", {}, {}, write)
    assert set(json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))) == {"labels/small"}


def run(staging: Staging, value: int = 0, build: Any = write, **options: Any) -> Any:
    return staging.run("first", "test-stage", {"value": value}, {"input": "a"}, build, **options)


def test_a_stage_is_run_once_and_known_afterwards(tmp_path: Path) -> None:
    staging = Staging(tmp_path, 0)
    manifest = run(staging)
    assert manifest.facts["fact"] == 1 and (tmp_path / "first" / "x.txt").is_file()
    assert run(staging, build=None) is manifest
    assert run(Staging(tmp_path, 0), build=None).digest == manifest.digest
    assert set(json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))) == {"first"}


def test_other_settings_are_refused_unless_they_may_replace(tmp_path: Path) -> None:
    run(Staging(tmp_path, 0))
    with pytest.raises(FolderConflictError, match="value is 0 there and 1 here"):
        run(Staging(tmp_path, 0), 1)
    assert run(Staging(tmp_path, 0, overwrite=True), 1).config == {"value": 1}


def test_time_adds_up_where_a_checkpoint_was_left(tmp_path: Path) -> None:
    def stop(work: Path) -> Mapping[str, Any]:
        (work / CHECKPOINT_NAME / "state").write_text("x", encoding="utf-8")
        raise KeyboardInterrupt

    staging = Staging(tmp_path, 0)
    with pytest.raises(KeyboardInterrupt):
        run(staging, build=stop)
    (tmp_path / TIMINGS).write_text('{"first": 100.0}', encoding="utf-8")
    run(staging)
    assert json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))["first"] >= 100.0


@dataclass(frozen=True)
class Told(Crew):
    """A process that hears prepared words, or writes down those that it says."""

    words: list[Any] = field(default_factory=list)

    def tell(self, word: Any) -> Any:
        if self.rank:
            return self.words.pop(0)
        self.words.append(word)
        return word


def test_the_first_process_tells_what_it_does(tmp_path: Path) -> None:
    crew = Told(2, 0)
    run(Staging(tmp_path, 0, crew=crew), together=True)
    assert [word for word, _ in crew.words] == ["build", "done"]
    alone = Told(2, 0)
    run(Staging(tmp_path, 0, crew=alone), together=True)
    assert alone.words == [("done", "")]


def test_the_first_process_tells_of_its_failure(tmp_path: Path) -> None:
    run(Staging(tmp_path, 0))
    crew = Told(2, 0)
    with pytest.raises(FolderConflictError):
        run(Staging(tmp_path, 0, crew=crew), 1)
    assert crew.words[-1][0] == "failed" and "FolderConflictError" in crew.words[-1][1]


def test_the_others_build_where_they_are_told_and_read_the_result(tmp_path: Path) -> None:
    manifest = run(Staging(tmp_path, 0))
    seen: list[Path] = []
    crew = Told(2, 1, [("build", "there"), ("done", "")])
    assert run(Staging(tmp_path, 0, crew=crew), build=seen.append).digest == manifest.digest
    assert seen == [Path("there")]


def test_the_others_fail_with_the_first(tmp_path: Path) -> None:
    crew = Told(2, 1, [("failed", "DataError: no photos")])
    with pytest.raises(RankError, match="DataError: no photos"):
        run(Staging(tmp_path, 0, crew=crew))
