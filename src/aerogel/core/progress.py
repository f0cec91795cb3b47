"""Progress that people see, and programs and other processes do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["announce", "is_first_process", "track"]

Item = TypeVar("Item")

# The bar on the screen, if any: a loop inside a tracked loop adds a line to it.
_current: ContextVar[Progress | None] = ContextVar("aerogel_progress", default=None)


def track(iterable: Iterable[Item], *, total: int | None, label: str, unit: str = "it") -> Iterator[Item]:
    """Yield the items of an iterable and show on stderr how many came and how long the rest will take.

    Nothing is shown when stderr is not a terminal, in processes other than the first of a distributed run,
    and when the environment variable AEROGEL_PROGRESS is 0.
    """
    if not is_watched():
        yield from iterable
        return
    outer = _current.get()
    progress = outer or _make_bar()
    task = progress.add_task(label, total=total, unit=unit)
    token = None
    if outer is None:
        progress.start()
        token = _current.set(progress)
    try:
        for item in iterable:
            yield item
            progress.advance(task)
    finally:
        if token is None:
            progress.remove_task(task)
        else:
            progress.stop()
            _current.set(None)


def announce(message: str) -> None:
    """Print a line to stderr, in the first process of a distributed run only."""
    if not is_first_process():
        return
    progress = _current.get()
    if progress is None:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    else:
        progress.console.print(message, markup=False, highlight=False, soft_wrap=True)


def is_first_process() -> bool:
    """Tell whether this is the process that speaks for a distributed run, or the only one."""
    return all(os.environ.get(name, "0") in ("", "0") for name in ("RANK", "LOCAL_RANK"))


def is_watched() -> bool:
    """Tell whether a person sees what this process writes, so that bars are welcome."""
    return os.environ.get("AEROGEL_PROGRESS") != "0" and is_first_process() and sys.stderr.isatty()


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # output that goes to a file or pipe must stay there
    )
