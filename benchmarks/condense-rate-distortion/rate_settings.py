"""Set the benchmark, and share its rows between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rate_verdicts import FULL, GENERATOR

from aerogel.condense import CondenseConfig
from aerogel.condense.codecs.naming import PREFIX
from aerogel.condense.config import ADAPTER_CODECS
from aerogel.core.config import config
from aerogel.core.locks import hold_lock
from aerogel.errors import FolderConflictError

SMALL_KINDS = ("hard", "one-per-image")


@config("benchmark.rate-distortion", version=1)
@dataclass(frozen=True)
class Settings:
    """Set the condensed set, its students with their stored labels, and the generators.

    A generator is a rank and an adapter codec, such as "12-int8"; those of one rank are trained once.
    """

    condense: CondenseConfig = field(default_factory=CondenseConfig)
    generators: tuple[str, ...] = ()

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        for name in self.generators:
            rank, _, codec = name.partition("-")
            if not rank.isdigit() or int(rank) < 1 or codec not in ADAPTER_CODECS:
                mistakes.append(f"generators: expected a rank and one of {ADAPTER_CODECS}; got {name!r}")
        kinds = self.condense.student.labels
        wrong = [kind for kind in kinds if not kind.startswith(PREFIX) and kind not in SMALL_KINDS]
        if FULL not in kinds or wrong:
            known = f"{FULL}, other codecs, {' and '.join(SMALL_KINDS)}"
            mistakes.append(f"condense.student.labels: expected {known}; got {list(kinds)}")
        return mistakes

    @property
    def rows(self) -> tuple[str, ...]:
        """Return the rows, generators first: they take longest."""
        return (*(f"{GENERATOR}-{name}" for name in self.generators), *self.condense.student.labels)


class BusyError(Exception):
    """Tell that another process works on the same thing just now."""


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``.

    Raises:
        BusyError: one of them is in it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(folder))
        except FolderConflictError as held:
            raise BusyError(str(held)) from held
        yield
