from __future__ import annotations

import math

from aerogel.report.chart import dashes, level_key, line_key, line_style, marker, marker_key, split_levels
from aerogel.report.document import Level
from aerogel.report.palette import MARKERS, SERIES


def test_series_differ_in_colour_dash_and_marker() -> None:
    count = len(SERIES)
    for look in (dashes, marker, lambda index: line_style(index)["color"]):
        assert len({look(index) for index in range(count)}) == count
    twice = [(line_style(index)["color"], dashes(index), marker(index)) for index in range(count * count)]
    assert len(set(twice)) == count * count


def test_keys_show_what_the_drawing_shows() -> None:
    assert line_key("a", 0).dash == ""
    assert line_key("a", 1).dash == "6 3"
    assert marker_key("a", 1).path == MARKERS["s"]
    assert (level_key(Level("chance", 10)).name, level_key(Level("chance", 10)).role) == ("chance", "soft")


def test_levels_that_cannot_be_drawn_are_noted() -> None:
    chance, lost, zero = Level("chance", 10.0), Level("lost", math.nan), Level("zero", 0.0)
    assert split_levels([chance, lost, zero], log=True) == (
        [chance],
        ["lost cannot be drawn at nan.", "zero cannot be drawn at 0."],
    )
    assert split_levels([zero], log=False) == ([zero], [])
