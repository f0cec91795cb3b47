"""A time is found among a denoiser's arguments in every way that pipelines write it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aerogel.parallel.times import TimeArgument


def unet(sample: Any, timestep: Any, context: Any = None) -> None:
    """Take a time as U-Nets do."""


def dit(hidden_states: Any, *, timestep: Any) -> None:
    """Take a time as transformers do."""


def timeless(sample: Any) -> None:
    """Take no time."""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (torch.tensor(801), torch.tensor(601)),
        (torch.tensor([801, 801]), torch.tensor([601, 601])),
        (torch.tensor([0.801]), torch.tensor([0.601])),
        (torch.tensor([0.801], dtype=torch.bfloat16), torch.tensor([0.601], dtype=torch.bfloat16)),
        (torch.tensor([1 - 0.801]), torch.tensor([1 - 0.601])),
        (torch.tensor([[0.0, 801.0], [801.0, 0.0]]), torch.tensor([[0.0, 601.0], [601.0, 0.0]])),
        (801, 601),
        (0.801, 0.601),
    ],
)
def test_the_other_time_is_written_the_same_way(written: Any, expected: Any) -> None:
    for args, kwargs in (((1, written), {}), ((1,), {"timestep": written})):
        shifted = TimeArgument(unet).shift(args, kwargs, 801.0, 601.0)
        assert shifted is not None
        found = shifted[1]["timestep"] if kwargs else shifted[0][1]
        assert type(found) is type(expected)
        torch.testing.assert_close(found, expected)
        assert (args, kwargs) in [((1, written), {}), ((1,), {"timestep": written})]


def test_a_keyword_only_time_is_found() -> None:
    shifted = TimeArgument(dit).shift((0,), {"timestep": torch.tensor(5.0)}, 5.0, 3.0)
    assert shifted is not None
    assert shifted[1]["timestep"] == torch.tensor(3.0)


@pytest.mark.parametrize(
    ("forward", "args", "kwargs"),
    [(timeless, (1,), {}), (unet, (1,), {}), (unet, (1, torch.tensor(77.0)), {}), (unet, (1, 77), {})],
)
def test_a_time_that_is_not_found_is_told(forward: Any, args: Any, kwargs: Any) -> None:
    assert TimeArgument(forward).shift(args, kwargs, 801.0, 601.0) is None
