"""Choose the usable ones of many pictures before work starts, and say which were left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from aerogel.core.progress import announce, track
from aerogel.core.randomness import permutation
from aerogel.errors import ConfigError, DataError, compose
from aerogel.zoo.decode import PictureError
from aerogel.zoo.records import list_problems

OTHER_FILE = "not a picture"
"""The reason for files that nobody would take for a picture; they are counted, not listed."""


@dataclass(frozen=True)
class Skipped:
    """Name something that was left out, and why."""

    identifier: str
    reason: str

    def __str__(self) -> str:
        return f"{self.identifier}: {self.reason}"


def select_usable(
    identifiers: Sequence[str],
    check: Callable[[int], object],
    *,
    limit: int | None,
    seed: int | None,
    where: str,
    skipped: Iterable[Skipped] = (),
    what: str = "photos",
) -> tuple[tuple[int, ...], tuple[Skipped, ...]]:
    """Choose the numbers of the candidates that ``check`` does not refuse, in their order, and the others.

    With a limit the search ends when that many are found, so that the rest is not even looked at: the first
    ones, or with a seed a random sample, which depends on the seed and the number of candidates only. Those
    in ``skipped`` were refused beforehand. What was left out is announced.

    Raises:
        DataError: none is usable, or fewer than the limit; it lists what was left out.
        ConfigError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            compose("a limit of at least 1, or None for all", repr(limit), "pass another limit")
        )
    count = len(identifiers)
    order = np.arange(count) if seed is None else permutation(seed, "photos", 0, count)
    chosen: list[int] = []
    refused: list[Skipped] = []
    for number in track(order.tolist(), total=count, label=f"look at {where}", unit=what):
        if limit is not None and len(chosen) == limit:
            break
        try:
            check(number)
        except PictureError as error:
            refused.append(Skipped(identifiers[number], str(error)))
        else:
            chosen.append(number)
    left_out = (*refused, *skipped)
    if not chosen or (limit is not None and len(chosen) < limit):
        expected = (
            f"{limit:,} usable {what} in {where}" if limit else f"usable {what} in {where}, at least one"
        )
        got = f"{len(chosen):,}" + (f", having left out {summarise(left_out)}" if left_out else "")
        remedy = "add or correct files" + (", or ask for fewer" if chosen else ", or give another place")
        raise DataError(compose(expected, got, remedy))
    if left_out:
        announce(f"{where}: {len(chosen):,} {what}; left out {summarise(left_out)}.")
    return tuple(sorted(chosen)), left_out


def summarise(skipped: Sequence[Skipped]) -> str:
    """Write what was left out: the first 20 by name, files of other kinds by their number."""
    listed = [str(each) for each in skipped if each.reason != OTHER_FILE]
    others = [each.identifier for each in skipped if each.reason == OTHER_FILE]
    parts = [list_problems(listed)] if listed else []
    if others:
        kinds = Counter(PurePath(name).suffix.lower() or "no suffix" for name in others)
        names = ", ".join(kind for kind, _ in kinds.most_common(5))
        noun = "file that is no picture" if len(others) == 1 else "files that are no pictures"
        parts.append(f"{len(others):,} {noun} ({names})")
    return "; ".join(parts)
