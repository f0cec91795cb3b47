"""Prepare the next items of a sequence on other threads while the last is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from aerogel.core.environment import count_cores

__all__ = ["read_ahead"]

Item = TypeVar("Item")
Made = TypeVar("Made")

# Decoders take a whole core each; more of them than this would only hold more pictures in memory.
_MOST_WORKERS = 8


def read_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """Yield ``make(item)`` of each item, in order; up to eight threads are a few items ahead.

    It is for work that leaves the interpreter free, such as decoding pictures. What ``make`` raises is raised
    where its result would have come. Items are taken on the caller's thread, no sooner than they are needed.
    """
    workers = min(_MOST_WORKERS, count_cores())
    rest = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="aerogel-ahead") as pool:
        waiting: deque[Future[Made]] = deque(pool.submit(make, item) for item in islice(rest, 2 * workers))
        try:
            while waiting:
                made = waiting.popleft().result()
                for item in islice(rest, 1):
                    waiting.append(pool.submit(make, item))
                yield made
        finally:
            for future in waiting:
                future.cancel()
