"""Hold a drawn chart with everything that says it in other ways: keys, notes, numbers, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerogel.report.document import Level, is_drawable
from aerogel.report.palette import DASHES, MARKERS, SERIES, series_role, stand_in


@dataclass(frozen=True)
class KeyEntry:
    """Explain one mark: a stretch of line (``dash``), a marker (``path``), or a number."""

    name: str
    role: str = "soft"
    dash: str | None = None
    path: str = ""
    number: int | None = None


@dataclass(frozen=True)
class View:
    """Hold the chart for one size of page, and the key of what is not named in the drawing itself."""

    size: str
    svg: str
    key: tuple[KeyEntry, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Hold all views of one chart, notes on what they leave out, and its numbers as a table."""

    views: tuple[View, ...]
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def line_key(name: str, index: int) -> KeyEntry:
    """Return the key of series ``index``."""
    dash = " ".join(f"{part:g}" for part in dashes(index))
    return KeyEntry(name, series_role(index), dash=dash)


def level_key(level: Level) -> KeyEntry:
    """Return the key of a level line."""
    return KeyEntry(level.name, "soft", dash="2 3")


def marker_key(name: str, index: int) -> KeyEntry:
    """Return the key of marker ``index``."""
    return KeyEntry(name, series_role(index), path=MARKERS[marker(index)])


def dashes(index: int) -> tuple[float, ...]:
    """Return the dash pattern of series ``index``, in pixels; empty for a solid line."""
    return DASHES[_turn(index)]


def marker(index: int) -> str:
    """Return the marker of series or group ``index``, as matplotlib names it."""
    return tuple(MARKERS)[_turn(index)]


def _turn(index: int) -> int:
    """Return which dash or marker to take, so that a colour's second use comes with another one."""
    return (index + index // len(SERIES)) % len(SERIES)


def line_style(index: int) -> dict[str, object]:
    """Return how matplotlib draws series ``index``."""
    pattern = dashes(index)
    style: object = (0, pattern) if pattern else "solid"
    return {
        "color": stand_in(series_role(index)),
        "linewidth": 2.2,
        "linestyle": style,
        "dash_capstyle": "butt",
    }


def level_style() -> dict[str, object]:
    """Return how matplotlib draws a level line."""
    return {"color": stand_in("soft"), "linewidth": 1.2, "linestyle": (0, (2, 3))}


def split_levels(levels: Sequence[Level], log: bool) -> tuple[list[Level], list[str]]:
    """Return the levels that can be drawn, and a note for each that cannot."""
    drawn = [level for level in levels if is_drawable(level.y, log)]
    notes = [f"{level.name} cannot be drawn at {level.y:g}." for level in levels if level not in drawn]
    return drawn, notes
