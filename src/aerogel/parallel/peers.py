"""Tell the loss of another process from a fault of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aerogel.errors import RankError, compose


class LostError(RankError):
    """Report that another process has ended, or does not answer."""


@contextmanager
def reaching() -> Iterator[None]:
    """Pass something to other processes, or wait for them, and nothing else, in the block.

    Raises:
        LostError: they cannot be reached, or time is up.
    """
    try:
        yield
    except LostError:
        raise
    except (RuntimeError, OSError, EOFError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise LostError(
            compose(
                "an answer of the other processes",
                said,
                "see what the one that ended first says; if none ended, raise timeout_s",
            )
        ) from error
