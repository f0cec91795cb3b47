"""Stages can be killed at any moment and end as if they had not been."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aerogel.core import stages
from aerogel.core.folders import verify_folder
from aerogel.core.locks import hold_lock
from aerogel.core.manifests import MANIFEST_NAME
from aerogel.core.stages import Stage, run_stage
from aerogel.errors import (
    DataError,
    FolderConflictError,
    FolderExistsError,
    IntegrityError,
    StorageFullError,
)


class Builder:
    """Write a file and count the calls."""

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        self.calls = 0
        self.facts = facts or {"n": 1}

    def __call__(self, work: Path) -> Mapping[str, Any]:
        self.calls += 1
        (work / "result").write_text("result")
        (work / "checkpoint" / "step").write_text(str(self.calls))
        return self.facts


class Crash(BaseException):
    """What stands for a process that stops here."""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "out", "test", {"lr": 0.1, "net": {"width": 8}}, {"teacher": "abc"}, 7, "cmd")


def test_a_stage_is_built_once(stage: Stage) -> None:
    builder = Builder()
    first = run_stage(stage, builder)
    assert run_stage(stage, builder) == first == verify_folder(stage.folder, "test")
    assert builder.calls == 1
    assert sorted(first.files) == ["result"]
    assert first.facts == {"n": 1, "fingerprint": stage.fingerprint, "inputs": {"teacher": "abc"}}
    assert (first.seed, first.command) == (7, "cmd")
    assert first.config == {"lr": 0.1, "net": {"width": 8}}
    assert os.listdir(stage.folder.parent) == ["out"]


def test_the_fingerprint_covers_all_but_the_command_and_the_place(stage: Stage) -> None:
    assert replace(stage, command=None, folder=Path("elsewhere")).fingerprint == stage.fingerprint
    assert replace(stage, config={"net": {"width": 8}, "lr": 0.1}).fingerprint == stage.fingerprint
    changed = [
        replace(stage, kind="other"),
        replace(stage, config={"lr": 0.2, "net": {"width": 8}}),
        replace(stage, inputs={"teacher": "abd"}),
        replace(stage, seed=8),
    ]
    assert len({s.fingerprint for s in (stage, *changed)}) == 5


def test_other_settings_are_a_conflict_that_names_them(stage: Stage) -> None:
    run_stage(stage, Builder())
    other = replace(stage, config={"lr": 0.2, "net": {"width": 8}, "new": True}, seed=8)
    builder = Builder()
    with pytest.raises(FolderConflictError) as caught:
        run_stage(other, builder)
    message = str(caught.value)
    assert "config.lr is 0.1 there and 0.2 here" in message
    assert "config.new is absent there and True here" in message
    assert "seed is 7 there and 8 here" in message
    assert "width" not in message
    assert builder.calls == 0
    assert run_stage(other, builder, overwrite=True).seed == 8
    assert verify_folder(stage.folder).seed == 8
    assert os.listdir(stage.folder.parent) == ["out"]


def test_overwriting_still_returns_a_finished_folder_of_the_same_stage(stage: Stage) -> None:
    builder = Builder()
    run_stage(stage, builder)
    run_stage(stage, builder, overwrite=True)
    assert builder.calls == 1


def test_a_damaged_folder_is_refused_or_built_anew(stage: Stage) -> None:
    run_stage(stage, Builder())
    (stage.folder / "result").write_text("rasult")
    with pytest.raises(IntegrityError, match="other content"):
        run_stage(stage, Builder())
    run_stage(stage, Builder(), overwrite=True)
    assert (stage.folder / "result").read_text() == "result"


def test_a_failed_build_is_handed_back_its_folder(stage: Stage) -> None:
    def fail(work: Path) -> Mapping[str, Any]:
        (work / "checkpoint" / "step").write_text("3")
        raise Crash

    with pytest.raises(Crash):
        run_stage(stage, fail)
    assert os.listdir(stage.folder.parent) == ["out.partial"]

    def resume(work: Path) -> Mapping[str, Any]:
        assert (work / "checkpoint" / "step").read_text() == "3"
        (work / "result").write_text("result")
        return {"n": 1}

    manifest = run_stage(stage, resume)
    assert manifest == run_stage(replace(stage, folder=stage.folder.with_name("straight")), Builder())
    assert sorted(os.listdir(stage.folder.parent)) == ["out", "straight"]


def test_work_of_other_settings_is_not_handed_over(stage: Stage) -> None:
    def fail(work: Path) -> Mapping[str, Any]:
        (work / "leftover").write_text("x")
        raise Crash

    with pytest.raises(Crash):
        run_stage(stage, fail)
    other = replace(stage, seed=8)
    with pytest.raises(FolderConflictError, match="seed is 7 there and 8 here"):
        run_stage(other, Builder())
    assert sorted(run_stage(other, Builder(), overwrite=True).files) == ["result"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["out", "out.partial"])
@pytest.mark.parametrize("content", ["photo.png", MANIFEST_NAME, ".stage.json"])
def test_what_is_the_users_is_never_removed(stage: Stage, overwrite: bool, name: str, content: str) -> None:
    mine = stage.folder.with_name(name)
    mine.mkdir()
    (mine / content).write_text("mine")
    builder = Builder()
    with pytest.raises((FolderExistsError, IntegrityError)):
        run_stage(stage, builder, overwrite=overwrite)
    assert (mine / content).read_text() == "mine"
    assert builder.calls == 0


def test_a_file_at_the_place_is_refused_and_an_empty_folder_taken(stage: Stage) -> None:
    stage.folder.write_text("mine")
    with pytest.raises(FolderExistsError, match="a file"):
        run_stage(stage, Builder(), overwrite=True)
    stage.folder.unlink()
    stage.folder.mkdir()
    stage.folder.with_name("out.partial").mkdir()
    run_stage(stage, Builder())
    assert os.listdir(stage.folder.parent) == ["out"]


def test_two_runs_in_one_folder_are_refused(stage: Stage) -> None:
    with hold_lock(stage.folder), pytest.raises(FolderConflictError, match="another run working"):
        run_stage(stage, Builder())

    def nested(work: Path) -> Mapping[str, Any]:
        with pytest.raises(FolderConflictError):
            run_stage(stage, Builder())
        return {}

    run_stage(stage, nested)


def test_facts_must_be_plain_and_not_take_our_names(stage: Stage) -> None:
    with pytest.raises(DataError, match="fingerprint"):
        run_stage(stage, Builder({"fingerprint": "x"}))
    with pytest.raises(DataError, match=r"facts\.loss"):
        run_stage(stage, Builder({"loss": float("nan")}))
    assert run_stage(stage, Builder({"pair": (1, 2)})).facts["pair"] == [1, 2]


def test_a_full_disk_keeps_what_was_done(stage: Stage) -> None:
    def fill(work: Path) -> Mapping[str, Any]:
        (work / "checkpoint" / "step").write_text("3")
        raise RuntimeError("PytorchStreamWriter: No space left on device")

    with pytest.raises(StorageFullError, match="run the same again"):
        run_stage(stage, fill)
    with pytest.raises(StorageFullError, match="free bytes for"):
        run_stage(stage, Builder(), need_bytes=10**18)
    assert (stage.folder.with_name("out.partial") / "checkpoint" / "step").read_text() == "3"
    run_stage(stage, Builder(), need_bytes=1)


def test_continuing_is_said_aloud(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(work: Path) -> Mapping[str, Any]:
        raise Crash

    with pytest.raises(Crash):
        run_stage(stage, fail)
    assert capsys.readouterr().err == ""
    run_stage(stage, Builder())
    assert capsys.readouterr().err == f"continuing test from {stage.folder}.partial\n"


STEPS = [
    "write_text_atomic",
    "write_text_atomic",
    "sweep_temporaries",
    "seal_folder",
    "sync_folder",
    "put_in_place",
]


@pytest.mark.parametrize("step", range(9))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_ends_as_if_it_had_not_been(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    straight = run_stage(replace(stage, folder=stage.folder.with_name("straight")), Builder())
    calls = iter(range(99))

    def crash(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            now = next(calls) == step
            if now and not after:
                raise Crash
            result = function(*args, **kwargs)
            if now:
                raise Crash
            return result

        return wrapped

    builder = Builder()
    with monkeypatch.context() as patch:
        for name in dict.fromkeys(STEPS):
            patch.setattr(stages, name, crash(getattr(stages, name)))
        patch.setattr(shutil, "rmtree", crash(shutil.rmtree))
        patch.setattr(os, "rename", crash(os.rename))
        with pytest.raises(Crash):
            run_stage(stage, builder)
    assert run_stage(stage, builder) == straight
    text = (stage.folder / MANIFEST_NAME).read_bytes()
    assert text == (stage.folder.with_name("straight") / MANIFEST_NAME).read_bytes()
    assert sorted(os.listdir(stage.folder.parent)) == ["out", "straight"]


RUNNER = """
    import json, sys, time
    from pathlib import Path
    from aerogel.core.files import write_text_atomic
    from aerogel.core.stages import Stage, run_stage

    root = Path(sys.argv[1])

    def build(name, steps):
        def run(work):
            place = work / "checkpoint" / "state.json"
            state = json.loads(place.read_text()) if place.exists() else {"step": 0, "sum": 0}
            while state["step"] < steps:
                state = {"step": state["step"] + 1, "sum": state["sum"] * 31 % 1009 + state["step"]}
                write_text_atomic(work / f"snapshot-{state['step'] % 3}.json", json.dumps(state))
                write_text_atomic(place, json.dumps(state))
                time.sleep(0.004)
            write_text_atomic(work / "result.json", json.dumps(state))
            return {"sum": state["sum"], "name": name}
        return run

    digests = {}
    print("ready", flush=True)
    for name in ("one", "two", "three"):
        stage = Stage(root / name, name, {"steps": 12}, dict(digests), seed=3, command="run")
        digests[name] = run_stage(stage, build(name, 12)).digest
    print(json.dumps(digests), flush=True)
"""


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(RUNNER), str(root)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_run_killed_at_random_moments_ends_with_the_same_manifests(tmp_path: Path) -> None:
    with start(tmp_path / "straight") as process:
        straight = json.loads(process.communicate(timeout=60)[0])
    dice = random.Random(1)
    for _ in range(5):
        with start(tmp_path / "killed") as process:
            time.sleep(dice.uniform(0.0, 0.12))
            process.kill()
    interrupted = [p.name for p in (tmp_path / "killed").iterdir()]
    assert interrupted, "the kills came before any work"
    with start(tmp_path / "killed") as process:
        killed = json.loads(process.communicate(timeout=60)[0])
    assert killed == straight
    assert sorted(os.listdir(tmp_path / "killed")) == ["one", "three", "two"]
    for name in straight:
        first, second = (tmp_path / way / name / MANIFEST_NAME for way in ("straight", "killed"))
        assert first.read_bytes() == second.read_bytes()
