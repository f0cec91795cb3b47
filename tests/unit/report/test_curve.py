from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import pytest

from aerogel.report.curve import draw_curve
from aerogel.report.document import Curve, Level, Series


def labels(svg: str) -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter("text")
    return [text for text in found if "label" in (text.get("class") or "").split()]


def test_lines_are_named_at_their_ends_and_in_a_key_where_there_is_no_room() -> None:
    names = ["first", "second", "third", "fourth"]
    series = [Series(name, [1, 2, 3], [10, 20, 30 + 0.1 * step]) for step, name in enumerate(names)]
    chart = draw_curve(Curve("t", "x", "y", series, levels=[Level("chance", 10)]), "c")
    wide, narrow = chart.views
    assert (wide.size, narrow.size) == ("wide", "narrow")
    assert [text.text for text in labels(wide.svg)] == [*names, "chance"]
    assert wide.key == ()
    heights = sorted(float(text.get("y", "nan")) for text in labels(wide.svg))
    assert all(after - before >= 17 for before, after in itertools.pairwise(heights))
    assert labels(narrow.svg) == []
    assert [entry.name for entry in narrow.key] == [*names, "chance"]


def test_long_or_many_names_move_to_the_key() -> None:
    long = Series("a name that would take more than its share of the width of the page", [1, 2], [1, 2])
    many = [Series(f"run {step}", [1, 2], [1, step]) for step in range(40)]
    for series in ([long], many):
        wide = draw_curve(Curve("t", "x", "y", series), "c").views[0]
        assert labels(wide.svg) == []
        assert [entry.name for entry in wide.key] == [each.name for each in series]


@pytest.mark.parametrize("log_y", [False, True])
def test_values_that_cannot_be_drawn_leave_a_gap_and_a_note(log_y: bool) -> None:
    series = Series(
        "loss", [1, 2, 3, 4, 5], [3.0, math.nan, 0.0, math.inf, 0.5], [0.1, 0.1, 0.1, 0.1, math.nan]
    )
    chart = draw_curve(Curve("t", "x", "y", [series], log_y=log_y), "c")
    missing = 3 if log_y else 2
    assert chart.notes == (f"loss: {missing} of 5 values cannot be drawn and left a gap.",)
    assert chart.rows[0][:3] == ("loss", str(5 - missing), "3")
    assert "nan" not in chart.views[0].svg.lower()


@pytest.mark.parametrize(
    "series",
    [
        [],
        [Series("empty", [], [])],
        [Series("lost", [1.0], [math.nan])],
        [Series("lone", [3.0], [4.0])],
        [Series("flat", [1, 2], [5, 5])],
        [Series("vast", [1, 2], [-1e149, 1e149])],
    ],
)
def test_unusual_series_are_drawn_too(series: list[Series]) -> None:
    for log in (False, True):
        chart = draw_curve(Curve("t", "x", "y", series, log_x=log, log_y=log), "c")
        assert all(view.svg.startswith("<svg") for view in chart.views)


def test_long_runs_stay_small_and_summarised() -> None:
    steps = range(20_000)
    series = Series("loss", steps, [math.exp(-step / 4000) for step in steps])
    chart = draw_curve(Curve("t", "step", "loss", [series], log_y=True), "c")
    assert sum(len(view.svg) for view in chart.views) < 60_000
    assert chart.rows == (("loss", "20000", "1", "0.00674", "1", "0.00674"),)
