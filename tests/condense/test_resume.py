"""A run that is killed at any moment and given the same command again ends with the same folders."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aerogel.core.folders import read_manifest, verify_folder
from tests.condense import runner

KILLS = 5


class Stable:
    """Hold the process that starts runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, runner.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, out: Path, seconds: float | None = None) -> int:
        """Run in ``out``, to the end or killed after ``seconds``; return the status of its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        child = int(self._read())
        if seconds is not None:
            time.sleep(seconds)
            # A run that was quicker than its kill is over, and its status says so.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(self._read())

    def close(self) -> None:
        """End the process."""
        self._process.communicate("", timeout=60)


@pytest.fixture
def stable() -> Iterator[Stable]:
    found = Stable()
    yield found
    found.close()


def digests(out: Path) -> dict[str, str]:
    """Return the digest of every sound folder below ``out`` by its relative path."""
    folders = sorted(path.parent for path in out.rglob("manifest.json"))
    for folder in folders:
        verify_folder(folder)
    return {folder.relative_to(out).as_posix(): read_manifest(folder).digest for folder in folders}


def leftovers(out: Path) -> list[str]:
    """Return what no finished run leaves behind."""
    names = [path.relative_to(out).as_posix() for path in out.rglob("*")]
    odd = (".partial", "checkpoint", ".aerogel", ".lock", ".draft", ".stage.json")
    return [name for name in names if any(part in name for part in odd)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_five_kills_and_the_same_command_again_end_with_the_same_manifests(
    tmp_path: Path, stable: Stable
) -> None:
    # This process has another hash seed than the killed ones, so that no order of a set can hide.
    begin = time.monotonic()
    assert stable.run(tmp_path / "timed") == 0
    seconds = time.monotonic() - begin
    runner.run(tmp_path / "straight")
    expected = digests(tmp_path / "straight")
    assert {"teacher", "selection", "generator", "archive", "random-0", "rates/hard"} <= set(expected)
    assert len(expected) == 15
    assert digests(tmp_path / "timed") == expected

    moments = random.Random(2)
    kills, outs = 0, 0
    while kills < KILLS:
        out = tmp_path / f"killed-{outs}"
        outs += 1
        assert outs <= 3 * KILLS
        for moment in sorted(moments.random() for _ in range(KILLS)):
            if kills == KILLS:
                break
            # A run that was done before its moment counts for nothing, and another folder gets the kill.
            left = max(0.0, 0.95 * moment * seconds - sum(_spent(out)))
            status = stable.run(out, left)
            if os.WIFSIGNALED(status):
                kills += 1
                continue
            break
        assert stable.run(out) == 0
        assert digests(out) == expected
        assert leftovers(out) == []
    assert sorted(path.name for path in (tmp_path / "straight").iterdir()) == sorted(
        path.name for path in out.iterdir()
    )


def _spent(out: Path) -> list[float]:
    """Return the seconds that the finished stages in ``out`` took."""
    path = out / "timings.json"
    return list(json.loads(path.read_text()).values()) if path.exists() else []
