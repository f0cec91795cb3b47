from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import aerogel.report as report
from aerogel.errors import DataError
from aerogel.report.document import Picture, Pictures, Report, Section, Series, TableBlock, is_drawable


def test_values_are_frozen_hold_tuples_and_compare() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    one, other = (
        Report("t", sections=[Section("s", blocks=[Pictures([("a", pixels)], columns=2)])]) for _ in range(2)
    )
    assert one == other
    assert isinstance(one.sections, tuple)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.title = "other"  # type: ignore[misc]
    pixels += 1  # the report holds its own copy
    assert one == other


def test_pictures_take_pairs_of_caption_and_image() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    assert Pictures([("zero", pixels)]).images == (Picture(pixels, "zero"),)
    with pytest.raises(DataError, match="columns"):
        Pictures([], columns=0)


def test_series_take_arrays_and_refuse_uneven_lengths() -> None:
    assert Series("a", np.arange(3), np.arange(3)).y == (0.0, 1.0, 2.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"series 'a'; got 2 x, 3 y, 0 spread"):
        Series("a", [1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="1 spread"):
        Series("a", [1, 2], [1, 2], [1])


def test_tables_refuse_uneven_rows() -> None:
    with pytest.raises(DataError, match=r"2 cells in every row of table 'sizes'; got 1 cells in row 1"):
        TableBlock(("a", "b"), [(1, 2), (3,)], title="sizes")


@pytest.mark.parametrize(
    ("value", "linear", "log"),
    [
        (1.0, True, True),
        (0.0, True, False),
        (-1.0, True, False),
        (math.nan, False, False),
        (math.inf, False, False),
        (None, False, False),
        (1e200, False, False),
        (1e-200, True, False),
    ],
)
def test_what_an_axis_can_show(value: float | None, linear: bool, log: bool) -> None:
    assert (is_drawable(value), is_drawable(value, log=True)) == (linear, log)


def test_public_names_resolve_and_others_do_not() -> None:
    assert {name for name in report.__all__ if getattr(report, name) is None} == set()
    assert set(report.__all__) <= set(dir(report))
    with pytest.raises(AttributeError, match="no_such"):
        report.no_such  # noqa: B018
