"""Settings are checked, and all mistakes told at once."""

from __future__ import annotations

from typing import Any

import pytest

from aerogel.core.config import validate
from aerogel.errors import ConfigError
from aerogel.parallel.config import ParallelConfig


def test_the_defaults_are_sound() -> None:
    assert ParallelConfig().check() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("components", 0),
        ("warmup", 0),
        ("threads", -1),
        ("timeout_s", 0.0),
        ("stride", 3),
        ("speeds", (1.0,)),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    (mistake,) = ParallelConfig(**{"components": 2, name: value}).check()
    assert mistake.startswith(f"{name}: expected ")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"components(?s:.*)warmup(?s:.*)stride"):
        validate(ParallelConfig(components=-1, warmup=0, stride=7))
