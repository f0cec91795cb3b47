"""The command line that this process was started with, as it goes into manifests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_words: ContextVar[tuple[str, ...]] = ContextVar("aerogel_command_line", default=())


@contextmanager
def record_words(words: Sequence[str]) -> Iterator[None]:
    """Remember the words after the program's name while a command runs."""
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def read_command() -> str | None:
    """Return the command line, quoted for a shell; None outside of one."""
    words = _words.get()
    return shlex.join(["aerogel", *words]) if words else None
