"""A group of one rank is the denoiser itself; groups of several are held to the simulator in tests/dist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from aerogel.parallel.ranks import Rank
from aerogel.parallel.rounds import plan_rounds
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
