"""Recipes are plain data."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from aerogel.core.recipes import RecipeLoader


def read(text: str) -> Any:
    return yaml.load(text, Loader=RecipeLoader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e2", -200.0),
        ("1.5e3", 1500.0),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e-3x", "1e-3x"),
    ],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: Any) -> None:
    assert read(text) == value
    assert type(read(text)) is type(value)


def test_the_stock_loader_is_left_as_it_was() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert yaml.safe_load("{a: 1, a: 2}") == {"a": 2}


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", "x:\n  - a: 1\n    a: 2\n", "{'1': 1, 1: 2}"])
def test_a_key_that_occurs_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="occurs twice"):
        read(text)


def test_shared_parts_may_be_merged_and_changed() -> None:
    assert read("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["!!python/name:os.system ''", "!!python/object:int {}", "? [a]\n: 1"])
def test_anything_but_plain_data_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read(text)
