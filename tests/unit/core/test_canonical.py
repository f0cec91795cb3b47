"""Equal values have one JSON text; hostile JSON is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.core.canonical import canonical_json, canonical_sha256, parse_json, plain_value, show_value
from aerogel.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=12
)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = canonical_json(value)
    assert parse_json(text.encode()) == value
    assert text.isascii()


@given(st.dictionaries(TEXT, LEAVES, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)
    assert canonical_sha256(turned) == canonical_sha256(value)


def test_tuples_and_lists_are_the_same_and_the_text_is_fixed() -> None:
    assert canonical_json({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert canonical_sha256(()) == canonical_sha256([])
    assert canonical_sha256(1) != canonical_sha256("1")


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, {"a": {3}}, [object()], b"x"])
def test_what_json_cannot_carry_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(DataError, match=r"in facts\.deep"):
        plain_value({"deep": value}, "facts")


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(DataError):
        plain_value(loop)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}',
        b"[NaN]",
        b"[-Infinity]",
        b"[1e999]",
        b'["\\ud800"]',
        b'{"\\udfff": 1}',
        b"\xff\xfe",
        b"",
        b"{",
        b"[1] 2",
        b"[" * 100_000,
        b"[" * 65 + b"1" + b"]" * 65,
        b"1" * 5000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except ValueError:
        return
    assert canonical_json(value) == canonical_json(json.loads(raw))


def test_a_value_is_shown_short_however_deep_or_long_it_is() -> None:
    bomb: Any = "x" * 10**6
    for _ in range(30):
        bomb = [bomb] * 9
    assert len(show_value(bomb)) <= 100
    assert len(show_value("x" * 10**6)) <= 100
    assert len(show_value({str(i): "y" * 99 for i in range(99)})) <= 100
    assert show_value([1, "a"]) == "[1, 'a']"
