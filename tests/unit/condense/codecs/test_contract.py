"""What encodings share: index types, what float16 holds, and faults in words."""

from __future__ import annotations

import math

import pytest
import torch

from aerogel.condense.codecs.contract import (
    LARGEST,
    Field,
    find_outside,
    find_unfinite,
    index_type,
    require_float16,
)
from aerogel.errors import DataError


@pytest.mark.parametrize(
    ("count", "dtype"),
    [
        (2, torch.uint8),
        (256, torch.uint8),
        (257, torch.int16),
        (2**15, torch.int16),
        (2**15 + 1, torch.int32),
    ],
)
def test_indices_take_the_smallest_type_that_holds_them(count: int, dtype: torch.dtype) -> None:
    assert index_type(count) == dtype
    assert int(torch.tensor(count - 1).to(dtype)) == count - 1


def test_the_bytes_of_a_field_are_those_of_its_numbers() -> None:
    assert Field(torch.float16, (3, 4)).bytes == 24
    assert Field(torch.uint8, ()).bytes == 1


def test_faults_are_told() -> None:
    assert find_outside("x", torch.tensor([0, 3]), 4) is None
    assert find_outside("x", torch.tensor([], dtype=torch.long), 4) is None
    assert find_outside("x", torch.tensor([0, 4]), 4) == "indices in 'x' from 0 to 4, of 4"
    assert find_outside("x", torch.tensor([-1]), 4) == "indices in 'x' from -1 to -1, of 4"
    sound = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.int8)}
    assert find_unfinite(sound) is None
    assert (
        find_unfinite({**sound, "c": torch.tensor([math.inf])}) == "values of 'c' that are no finite numbers"
    )


def test_what_float16_cannot_hold_is_refused() -> None:
    require_float16(torch.tensor([LARGEST, -LARGEST]))
    require_float16(torch.empty(0))
    for value in (LARGEST * 1.01, -math.inf, math.nan):
        with pytest.raises(DataError, match="stored-fp32"):
            require_float16(torch.tensor([0.0, value]))
