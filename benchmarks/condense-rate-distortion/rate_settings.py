"""Set the benchmark, and share its rows between processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rate_verdicts import FULL, GENERATOR

from aerogel.condense import CondenseConfig
from aerogel.condense.checks import check_residual
from aerogel.condense.codecs.naming import PREFIX
from aerogel.condense.config import ADAPTER_CODECS, AdapterCodec
from aerogel.core.config import config
from aerogel.core.locks import hold_lock
from aerogel.errors import FolderConflictError

SMALL_KINDS = ("hard", "one-per-image")
_NAME = re.compile(
    r"(?P<rank>[1-9][0-9]{0,3})-(?P<codec>[a-z0-9]+)(\+(?P<residual>[a-z0-9]+)@(?P<epochs>[1-9][0-9]{0,3}))?"
)


@dataclass(frozen=True)
class Generated:
    """Say what a generator's labels are made of: ``residual`` is None without one."""

    rank: int
    codec: AdapterCodec
    residual: str | None = None
    epochs: int = 0


def parse_generator(name: str) -> Generated | None:
    """Read "12-int8", or "12-int8+vq256@20" with residuals of 20 epochs' views; None if it is neither."""
    match = _NAME.fullmatch(name)
    if match is None or match["codec"] not in ADAPTER_CODECS:
        return None
    residual = match["residual"] and PREFIX + match["residual"]
    epochs = int(match["epochs"] or 0)
    if check_residual(residual, epochs):
        return None
    return Generated(int(match["rank"]), match["codec"], residual, epochs)  # type: ignore[arg-type]


@config("benchmark.rate-distortion", version=1)
@dataclass(frozen=True)
class Settings:
    """Set the condensed set, its students with their stored labels, and the generators.

    A generator is a rank and an adapter codec, such as "12-int8"; those of one rank are trained once. In
    "12-int8+vq256@20" it has residuals beside it, for the views of 20 epochs, which its students go round.
    """

    condense: CondenseConfig = field(default_factory=CondenseConfig)
    generators: tuple[str, ...] = ()

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        for name in self.generators:
            if parse_generator(name) is None:
                mistakes.append(
                    f"generators: expected a rank and one of {ADAPTER_CODECS}, and maybe the codec of "
                    f"residuals and their epochs, as in 12-int8 or 12-int8+vq256@20; got {name!r}"
                )
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
