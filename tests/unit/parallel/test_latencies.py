"""Parts are timed where they are, and left as they were."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from aerogel.parallel.latencies import measure_calls
from aerogel.parallel.trace import trace_calls
from tests.unit.parallel.small import Denoiser

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
ARGUMENTS: tuple[Any, dict[str, Any]] = ((X, torch.tensor(900.0)), {})


def slow_down(module: torch.nn.Module, args: Any) -> None:
    time.sleep(0.02)


def test_every_part_has_a_time_and_the_slow_one_the_longest() -> None:
    model = Denoiser()
    root = trace_calls(model, *ARGUMENTS)
    model.blocks[2].linear.register_forward_pre_hook(slow_down)
    model.calls = 0
    found = measure_calls(model, root, ARGUMENTS, repeats=3, warmup=2)
    assert model.calls == 5
    model.calls = 0
    measure_calls(model, root, ARGUMENTS, repeats=3, warmup=2, spare_s=60.0)
    assert model.calls == 14
    assert set(found) == {call.name for call in root.walk() if call.name}
    assert all(0.0 < seconds < 10.0 for seconds in found.values())
    assert max((f"blocks.{number}" for number in range(4)), key=found.__getitem__) == "blocks.2"
    assert found["blocks.2"] >= 0.02


def test_no_hook_is_left_also_after_a_failure() -> None:
    model = Denoiser()
    root = trace_calls(model, *ARGUMENTS)
    with pytest.raises(RuntimeError):
        measure_calls(model, root, ((torch.ones(2, 7), 1.0), {}))
    measure_calls(model, root, ARGUMENTS, repeats=1)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
