"""Settings of numbers travel from one process to another."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch

from aerogel.parallel.numerics import Numerics


@pytest.fixture(autouse=True)
def before() -> Iterator[Numerics]:
    found = Numerics.read()
    yield found
    found.apply()


def test_what_was_read_is_applied(before: Numerics) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("high")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    other = pickle.loads(pickle.dumps(Numerics.read()))
    before.apply()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    other.apply()
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.benchmark
    assert Numerics.read() == other
