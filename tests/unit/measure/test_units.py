from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import DataError
from aerogel.measure.units import format_bytes, format_duration, format_value

FACTORS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18}


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (7812, "7.8 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (46_830_000, "46.8 MB"),
        (2_500_000_000_000, "2.5 TB"),
    ],
)
def test_bytes_have_decimal_prefixes(n: float, text: str) -> None:
    assert format_bytes(n) == text


@given(st.integers(min_value=0, max_value=10**20))
def test_bytes_read_back_to_within_the_last_digit(n: int) -> None:
    number, unit = format_bytes(n).split(" ")
    factor = FACTORS[unit]
    assert abs(float(number) * factor - n) <= (0 if unit == "B" else 0.0501 * factor)
    assert float(number) < 1000 or unit == "EB"


def test_negative_bytes_are_refused() -> None:
    with pytest.raises(DataError, match="zero or more"):
        format_bytes(-1)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_814_073_344, "MACs", "1.814 GMACs"),
        (999_960, "MACs", "1.000 MMACs"),
        (999, "MACs", "999 MACs"),
        (11_689_512, "parameters", "11.69 M parameters"),
        (7812, "bytes", "7.8 kB"),
        (-12, "bytes", "-12 bytes"),
        (93.5349, "%", "93.53 %"),
        (12.3, "ms", "12.30 ms"),
        (12345, "images", "12,345 images"),
        (12345.67, "ms", "12,346 ms"),
        (0.00123456, "s", "0.001235 s"),
        (0.0000123456, "s", "1.23e-05 s"),
        (0.0, "ms", "0 ms"),
        (2.5, "", "2.500"),
        (-2.5, "dB", "-2.500 dB"),
    ],
)
def test_values_for_people(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01, "< 0.1 s"),
        (0.3, "0.3 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (72, "1 min 12 s"),
        (3599.7, "1 h 0 min"),
        (7512, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
