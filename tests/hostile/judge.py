"""What a loader must do with a mutated archive: refuse it with a clear error, or load the very same."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.errors import AerogelError
from tests.hostile.mutate import Mutation

MOST_SECONDS = 2.0
MOST_BYTES = 200 * 2**20
LONGEST_MESSAGE = 10_000
EVERY = 5


@dataclass
class Subject:
    """An archive that nobody changes, another sound one, and a loader that returns all it loaded."""

    folder: Path
    other: Path
    load: Callable[[Path], Any]

    @cached_property
    def expected(self) -> str:
        """Return the hash of what the loader makes of the untouched archive."""
        return digest(self.load(self.folder))


def offer(corpus: Sequence[Mutation]) -> list[Any]:
    """Return a corpus as the cases of a test, every fifth for each run and the others for the long one."""
    return [
        pytest.param(each, id=each.name, marks=() if number % EVERY == 0 else pytest.mark.slow)
        for number, each in enumerate(corpus)
    ]


def judge(subject: Subject, mutation: Mutation, tmp_path: Path) -> str:
    """Mutate a copy, load it, and fail unless it is refused well or loads what the untouched one does."""
    expected = subject.expected
    copy = tmp_path / "box" / "set"
    shutil.copytree(subject.folder, copy, symlinks=True)
    before = listing(copy)
    mutation.act(copy, subject.other)
    assert listing(copy) != before, "the mutation changed nothing"
    before = listing(copy.parent)
    refusal, found = attempt(subject, copy)
    assert listing(copy.parent) == before, "the loader wrote files"
    if refusal is None:
        assert found == expected, "something else was loaded"
    else:
        assert not mutation.harmless, refusal
        words = (*mutation.about, str(copy))
        assert any(word in refusal for word in words), f"none of {words} in: {refusal}"
        assert "expected" in refusal, refusal
        assert len(refusal) <= LONGEST_MESSAGE, f"a message of {len(refusal):,} characters"
    assert digest(subject.load(subject.folder)) == expected, "the untouched archive does not load as before"
    return "loaded" if refusal is None else "refused"


def attempt(subject: Subject, folder: Path) -> tuple[str | None, str | None]:
    """Load within bounds of time and memory; return the refusal, or the hash of what was loaded."""
    base, begin = reset_peak(), time.process_time()
    refusal, found = None, None
    try:
        loaded = subject.load(folder)
    except AerogelError as error:
        refusal = str(error)
    else:
        found = digest(loaded)
    seconds, grown = time.process_time() - begin, peak_bytes() - base
    assert seconds < MOST_SECONDS, f"{seconds:.1f} s: {refusal}"
    assert grown < MOST_BYTES, f"{grown:,} bytes: {refusal}"
    return refusal, found


def reset_peak() -> int:
    """Forget the largest size that the process had, where the system can; return the present one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that the process held since the last reset, or ever."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def listing(folder: Path) -> dict[str, str]:
    """Return what lies below a folder: names, kinds and contents."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            key = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[key] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder" if path.is_dir() else "pipe"
    return found


def digest(value: Any) -> str:
    """Hash nested values with tensors and arrays in them."""
    spelled = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            part = part.detach().contiguous().view(torch.uint8).numpy() if part.ndim else part.item()
        if isinstance(part, np.ndarray):
            spelled.update(f"{part.dtype}{part.shape}".encode())
            spelled.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, dict):
            for key in sorted(part):
                spelled.update(f"{key!r}:".encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            spelled.update(f"[{len(part)}".encode())
            for each in part:
                add(each)
        else:
            spelled.update(repr(part).encode("utf-8", "surrogatepass"))

    add(value)
    return spelled.hexdigest()
