from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.report.axes import SIZES, Plot, Scale, Size
from aerogel.report.labels import measure_width


@given(st.lists(st.floats(), max_size=20), st.booleans())
def test_scale_covers_every_value_it_can_show(values: list[float], log: bool) -> None:
    scale = Scale.fit("", "", log, values, margin=0.1)
    assert math.isfinite(scale.low)
    assert math.isfinite(scale.high)
    assert scale.low < scale.high
    for value in values:
        if math.isfinite(value) and abs(value) <= 1e150 and (not log or value > 1e-150):
            slack = 1e-9 * max(abs(scale.low), abs(scale.high))
            assert scale.low - slack <= value <= scale.high + slack


def test_single_value_lies_in_the_middle() -> None:
    scale = Scale.fit("", "", False, [90.0])
    assert (scale.low + scale.high) / 2 == pytest.approx(90)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(2e1, 3e5, [1e2, 1e3, 1e4, 1e5]), (1.0, 50.0, [1, 3, 10, 30]), (1.0, 7.5, [1, 2, 3, 5, 7])],
)
def test_logarithmic_marks(low: float, high: float, marks: list[float]) -> None:
    found = Scale("", "", True, low, high).marks(9)
    assert found == pytest.approx(marks)


def test_whole_numbers_are_marked_by_whole_numbers() -> None:
    assert Scale.fit("epoch", "", False, [1, 2, 3, 4]).marks(9) == [1, 2, 3, 4]
    assert Scale.fit("share", "", False, [0, 1]).marks(6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_titles_carry_units_except_bytes() -> None:
    assert Scale("accuracy", "%", False, 0, 1).title == "accuracy (%)"
    assert Scale("labels", "B", True, 1, 10).title == "labels"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_plot_maps_values_to_pixels_and_its_marks_do_not_touch(size: Size) -> None:
    plot = Plot(size, Scale("x", "B", True, 1, 1e12), Scale("y", "%", False, 0, 100))
    assert plot.at(1, 0) == pytest.approx((plot.frame.left, plot.frame.bottom))
    assert plot.at(1e12, 100) == pytest.approx((plot.frame.right, plot.frame.top))
    below = [text for text in plot.texts if text.role == "tick" and text.anchor == "middle"]
    assert len(below) >= 2
    for text, after in itertools.pairwise(below):
        halves = (measure_width(text.content, 12.5) + measure_width(after.content, 12.5)) / 2
        assert after.x - text.x >= halves
