"""Every example runs as it stands, from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.tree import name_of, python_files

EXAMPLES = python_files("examples")


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "AEROGEL_PROGRESS": "0", "AEROGEL_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(example)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "an example shows what came out"
