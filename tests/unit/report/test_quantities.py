from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.report.quantities import format_quantity, format_ticks, tie_units


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (20, "B", "20 B"),
        (999, "B", "999 B"),
        (999.7, "B", "1 kB"),
        (7_840, "B", "7.8 kB"),
        (300_000, "B", "300 kB"),
        (1_500_000, "B", "1.5 MB"),
        (92.8, "%", "92.8 %"),
        (1437, "", "1,437"),
        (-0.25, "", "−0.25"),
        (0.0, "", "0"),
        (1e-7, "s", "1e−07 s"),
        (123456.7, "", "123,457"),
        (None, "", "—"),
        (math.nan, "%", "not a number"),
        (-math.inf, "", "−∞"),
    ],
)
def test_quantities_for_people(value: float | None, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


@given(st.floats(min_value=1, max_value=1e18))
def test_bytes_keep_their_size_to_five_percent(value: float) -> None:
    number, unit = format_quantity(value, "B").split()
    power = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert float(number) * 1000**power == pytest.approx(value, rel=0.05)
    assert float(number) < 1000


@pytest.mark.parametrize(
    ("values", "unit", "log", "texts"),
    [
        ([80.0, 85.0, 90.0], "%", False, ["80", "85", "90"]),
        ([0.0, 0.25, 0.5], "", False, ["0.00", "0.25", "0.50"]),
        ([-1000.0, 0.0, 1000.0], "", False, ["−1,000", "0", "1,000"]),
        ([100.0, 1e3, 1e4], "B", True, ["100 B", "1 kB", "10 kB"]),
        ([1e-4, 1e-2, 1.0], "", True, ["10⁻⁴", "0.01", "1"]),
        ([0.0, 2.5e6, 5e6], "", False, ["0", "2.5·10⁶", "5·10⁶"]),
        ([], "", False, []),
        ([5.0], "", False, ["5"]),
    ],
)
def test_ticks_are_written_alike(values: list[float], unit: str, log: bool, texts: list[str]) -> None:
    assert format_ticks(values, unit, log) == texts


def test_units_stay_with_their_numbers() -> None:
    assert (
        tie_units("92.8 ± 0.4 % in 8.2 kB of 3 bits")
        == "92.8\u00a0±\u00a00.4\u00a0% in 8.2\u00a0kB of 3 bits"
    )
