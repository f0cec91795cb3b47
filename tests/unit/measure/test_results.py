from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import DataError
from aerogel.measure.results import Measurement, Table

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SPREADS = st.one_of(
    st.tuples(st.none(), st.none()),
    st.tuples(st.floats(min_value=0, allow_infinity=False), st.sampled_from(["IQR", "std"])),
)
MEASUREMENTS = st.builds(
    lambda name, value, unit, spread, *rest: Measurement(name, value, unit, spread[0], spread[1], *rest),
    st.text(),
    st.one_of(FINITE, st.integers(min_value=-(10**18), max_value=10**18)),
    st.sampled_from(["ms", "bytes", "%", "MACs", "parameters", ""]),
    SPREADS,
    st.one_of(st.none(), st.integers(min_value=1)),
    st.text(),
)


@given(MEASUREMENTS)
def test_dicts_survive_json(measurement: Measurement) -> None:
    data = json.loads(json.dumps(measurement.to_dict(), allow_nan=False))
    assert Measurement.from_dict(data) == measurement


@given(st.text(), st.lists(MEASUREMENTS, max_size=4))
def test_tables_survive_json_on_one_line_and_can_be_drawn(title: str, rows: list[Measurement]) -> None:
    table = Table(title, tuple(rows))
    assert "\n" not in table.to_json()
    assert Table.from_json(table.to_json()) == table
    assert str(table) == str(table)


def test_measurements_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Measurement("a", 1.0, "ms").value = 2.0  # type: ignore[misc]


def test_numpy_scalars_become_plain_numbers() -> None:
    taken = Measurement("a", np.float32(1.5), "ms", np.float64(0.5), "std", np.int64(3))
    assert (type(taken.value), type(taken.spread), type(taken.samples)) == (float, float, int)
    assert type(Measurement("a", np.int64(7), "MACs").value) is int


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": 10**400},
        {"value": 10**5000},
        {"value": True},
        {"value": "12"},
        {"value": None},
        {"spread": 1.0},
        {"spread_kind": "std"},
        {"spread": -1.0, "spread_kind": "std"},
        {"spread": float("nan"), "spread_kind": "std"},
        {"samples": 0},
        {"samples": 1.5},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="what to do"):
        Measurement(**{"name": "a", "value": 1.0, "unit": "ms", **wrong})


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"name": "a", "value": 1.0}, "'unit' is missing"),
        ({"name": "a", "value": 1.0, "unit": "ms", "spred": 1.0}, "'spred' is unknown"),
        ({"name": 3, "value": 1.0, "unit": "ms"}, "'name' is int, not text"),
        ({"name": "a", "value": 1.0, "unit": "ms", "note": None}, "'note' is NoneType, not text"),
        ([1, 2], "to_dict"),
    ],
)
def test_foreign_dicts_are_refused(data: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Measurement.from_dict(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"title": "a"}',
        '{"title": 1, "measurements": []}',
        '{"title": "a", "measurements": 1}',
    ],
)
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        Table.from_json(text)


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (Measurement("size", 7812, "bytes"), "size: 7.8 kB"),
        (
            Measurement("accuracy", 93.53, "%", 0.48, "95% CI half-width", 10_000),
            "accuracy: 93.53 % ± 0.48 %",
        ),
        (Measurement("latency", 12.3, "ms", 0.4, "IQR", 20), "latency: 12.30 ms (IQR 0.4000 ms)"),
    ],
)
def test_text_shows_value_unit_and_spread(measurement: Measurement, text: str) -> None:
    assert str(measurement) == text


def test_drawn_table_shows_everything_and_takes_brackets_literally() -> None:
    row = Measurement("[bold]odd[/bold]", 12.3, "ms", 0.4, "IQR", 1234, "cpu, [1 thread]")
    drawn = str(Table("What [it] costs", (row,)))
    for part in (
        "What [it] costs",
        "[bold]odd[/bold]",
        "12.30 ms",
        "0.4000 ms (IQR)",
        "1,234",
        "cpu, [1 thread]",
    ):
        assert part in drawn
    assert "\x1b" not in drawn


def test_long_cells_are_folded_and_not_cut() -> None:
    drawn = str(Table("t", (Measurement("n" * 150, 1.0, "ms", note="o" * 250),)))
    assert (drawn.count("n"), drawn.count("o")) == (150 + 1 + 1, 250 + 1)  # headers: n, note
    assert max(len(line) for line in drawn.splitlines()) <= 110
