"""Memory of tensors that are gone serves the next ones; measured by how many pages are touched anew."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aerogel.core import allocation

LOOP = """
import resource, sys
if sys.argv[1] == "keep":
    from aerogel.core.allocation import keep_memory
    assert keep_memory()
import torch
torch.set_num_threads(1)
kept = torch.ones(2**24)
def work():
    for _ in range(5):
        kept + 1
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(mode: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment.pop("THP_MEM_ALLOC_ENABLE", None)
    done = subprocess.run(
        [sys.executable, "-c", LOOP, mode], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_not_touched_anew() -> None:
    plain, kept = count_faults("plain"), count_faults("keep")
    # Five tensors of 64 MiB are 81,920 pages of 4 KiB.
    assert plain > 10_000
    assert kept < plain / 20


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert not allocation.keep_memory()
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: SimpleNamespace())
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert not allocation.keep_memory()
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ


def test_the_users_choice_of_pages_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    library = SimpleNamespace(mallopt=lambda *option: asked.append(option) or 1)
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert allocation.keep_memory()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    assert len(asked) == 3
