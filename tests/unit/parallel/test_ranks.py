"""A group of one rank is the denoiser itself; groups of several are held to the simulator in tests/dist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from aerogel.errors import DeviceError
from aerogel.parallel.ranks import Rank
from aerogel.parallel.rounds import plan_rounds
from aerogel.parallel.trace import distinct_tensors
from aerogel.parallel.wiring import Wiring
from tests.unit.parallel.small import Denoiser, divide

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_one_rank_gives_what_the_denoiser_gives_and_sends_nothing() -> None:
    model = Denoiser()
    wiring = Wiring(model)
    rank = Rank(wiring, divide(model, 1, X), 1)
    with torch.no_grad():
        for planned in plan_rounds(3, warmup=1, stride=1):
            ((found,),) = rank.run(planned, lambda step: model(X, 900.0 - 100.0 * step))
            assert torch.equal(found, model(X, 900.0 - 100.0 * planned.body)[0])
    rank.finish()
    wiring.remove()
    assert rank.exchange.sent_bytes == 0
    assert not any("forward" in vars(module) for module in model.modules())


class Sealed:
    """Hold an estimate where nobody looks."""

    def __init__(self, estimate: torch.Tensor) -> None:
        self.estimate = estimate


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrap", [Sealed, lambda estimate: (estimate, Sealed(estimate + 1.0)), lambda _: 3])
def test_an_output_whose_tensors_cannot_be_found_is_refused(wrap: Any) -> None:
    model = Denoiser()
    rank = Rank(Wiring(model), divide(model, 1, X), 1)
    (first,) = plan_rounds(1, warmup=1, stride=1)
    with torch.no_grad(), pytest.raises(DeviceError, match="a denoiser that returns tensors"):
        rank.run(first, lambda step: wrap(model(X, 900.0)[0]))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrap", [dict, Transformer2DModelOutput, lambda sample: [sample, (sample, None)]])
def test_an_output_keeps_its_type(wrap: Any) -> None:
    model = Denoiser()
    rank = Rank(Wiring(model), divide(model, 1, X), 1)
    (first,) = plan_rounds(1, warmup=1, stride=1)
    with torch.no_grad():
        expected = model(X, 900.0)[0].t()
        given = wrap(sample=expected) if isinstance(wrap, type) else wrap(expected)
        (found,) = rank.run(first, lambda step: given)
    assert type(found) is type(given)
    for each in distinct_tensors(found):
        assert torch.equal(each, expected)
        assert each.stride() == expected.stride()
    assert str(found) == str(given)
