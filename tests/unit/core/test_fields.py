"""Values are read as what the annotations allow, unions among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

import pytest

from aerogel.core.config import config, from_dict, to_dict
from aerogel.core.fields import get_tag, parse_value, spell_value
from aerogel.errors import ConfigError


@config("circle")
@dataclass(frozen=True)
class Circle:
    """One of two shapes."""

    radius: float


@config("square")
@dataclass(frozen=True)
class Square:
    """The other."""

    side: float = 1.0


@config("drawing")
@dataclass(frozen=True)
class Drawing:
    """A choice of shapes."""

    shape: Circle | Square | None = None


def read(hint: Any, value: Any) -> Any:
    mistakes: list[str] = []
    parsed = parse_value(hint, value, "here", mistakes)
    return mistakes or parsed


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 3, 3.0),
        (int | float, 3, 3),
        (float | int, 3, 3),
        (float | str, "3", "3"),
        (Union[int, str], "3", "3"),  # noqa: UP007 - the older spelling is read too
        (Optional[bool], None, None),  # noqa: UP045
        (Optional[bool], True, True),  # noqa: UP045
        (int | bool, True, True),
        (None, None, None),
        (Literal[1, "a", True], True, True),
        (tuple[tuple[int, ...], ...], [[1], []], ((1,), ())),
        (dict[str, tuple[float, ...]], {"a": [1]}, {"a": (1.0,)}),
    ],
)
def test_values_are_read_in_the_type_they_have(hint: Any, value: Any, expected: Any) -> None:
    found = read(hint, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "part"),
    [
        (float | None, "x", "a finite number or null for here"),
        (Literal[1], True, "one of 1 for here"),
        (Literal["a"], 3, "choose one of these"),
        (float, 2**60, "a finite number"),
        (float, 10**400, "a finite number"),
        (tuple[int, ...], {1}, "a list"),
        (dict[str, int] | tuple[int, ...], 1, "a mapping or a list"),
        (Circle | None, 1, "the settings of circle or null"),
    ],
)
def test_other_values_are_mistakes(hint: Any, value: Any, part: str) -> None:
    (mistake,) = read(hint, value)
    assert part in mistake


def test_an_annotation_that_no_file_can_carry_is_the_programmers_mistake() -> None:
    for hint in (set[int], object, dict[int, str], list[int]):
        with pytest.raises(ConfigError, match="a config can carry"):
            read(hint, 1)


@pytest.mark.parametrize("shape", [Circle(2.0), Square(3.0), None])
def test_a_choice_of_configurations_goes_by_their_type(shape: Circle | Square | None) -> None:
    assert from_dict(Drawing, to_dict(Drawing(shape))) == Drawing(shape)


def test_the_mistakes_of_the_chosen_configuration_are_the_ones_told() -> None:
    with pytest.raises(ConfigError, match=r"a value for shape\.radius; got none"):
        from_dict(Drawing, {"shape": {"type": "circle"}})
    with pytest.raises(
        ConfigError, match="the settings of circle or the settings of square or null for shape"
    ):
        from_dict(Drawing, {"shape": {"type": "line"}})


def test_a_tag_is_not_inherited() -> None:
    class Child(Circle):
        pass

    assert get_tag(Circle).name == "circle"
    with pytest.raises(ConfigError):
        get_tag(Child)


def test_spelling_goes_through_nested_values() -> None:
    spelt = spell_value({"a": (Square(), [1])})
    assert spelt["a"][0] == {"type": "square", "version": 1, "side": 1.0}
