"""Keep the threads that compute on cores of their own where together they fill the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def share_cores(processes: int, threads: int) -> tuple[int, ...]:
    """Return a core for each process, or nothing where they are better left to the system.

    Processes of one thread each that fill all cores get one each: the threads that move data are many and
    short, and whenever one wakes, the system would move a computing thread away from its caches.
    """
    if threads != 1 or not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    return tuple(cores) if len(cores) == processes else ()


def keep_to(core: int) -> None:
    """Keep this thread, and all that it starts from now on, to ``core``."""
    os.sched_setaffinity(0, {core})


@contextmanager
def kept_to(core: int | None) -> Iterator[None]:
    """Keep this thread to ``core``, if there is one, for the time of the block."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    keep_to(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
