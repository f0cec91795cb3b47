"""Whoever shares the work, lanes are opened alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aerogel.parallel import company
from aerogel.parallel.calls import Calls
from aerogel.parallel.company import Alone, Ranks, Team
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.rounds import Round
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.wiring import Wiring
from tests.unit.parallel.small import Denoiser, divide

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")
FIRST = Round((0,), fresh=True, body=0)


@pytest.fixture
def _in_a_group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def call(model: Denoiser) -> Calls:
    return Calls(model, {0: ((X, 900.0), {})})


def test_alone_everything_is_simulated() -> None:
    model = Denoiser()
    alone = Alone(ParallelConfig(components=2, stride=2))
    layout = alone.lay_out("unet", model, lambda: divide(model, 2, X))
    runner = alone.make_runner("unet", model, Wiring(model), layout)
    assert isinstance(runner, Simulator)
    assert runner.seating.devices == 3
    assert alone.watch is None
    assert alone.resident_bytes("unet") == ()


@pytest.mark.usefixtures("_in_a_group_of_one")
def test_a_rank_runs_its_rounds_and_ends_with_the_others() -> None:
    model, pipe = Denoiser(), SimpleNamespace(_interrupt=False)
    ranks = Ranks(pipe, ParallelConfig(components=1), CPU)
    layout = ranks.lay_out("unet", model, lambda: divide(model, 1, X))
    wiring = Wiring(model)
    runner = ranks.make_runner("unet", model, wiring, layout)
    with torch.no_grad():
        ((found,),) = runner.run(FIRST, call(model))
        wiring.remove()
        assert torch.equal(found, model(X, 900.0)[0])
    ranks.finish()
    assert ranks.watch is not None


@pytest.mark.usefixtures("_in_a_group_of_one")
@pytest.mark.parametrize("pipe", [SimpleNamespace(_interrupt=False), SimpleNamespace()])
def test_an_interrupt_is_passed_to_pipelines_that_have_one(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(company, "Lockstep", lambda where, interrupt: asked.append(interrupt))
    Ranks(pipe, ParallelConfig(components=1), CPU)
    before = vars(pipe).copy()
    asked[0]()
    assert vars(pipe) == dict.fromkeys(before, True)


class Noted:
    """Note what workers are asked for."""

    running = True

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.resident_bytes = {"unet": [8]}

    def guard(self, work: Any) -> Any:
        return work()

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.said.append((name, *(each for each in args if isinstance(each, str))))


@pytest.mark.usefixtures("_in_a_group_of_one")
def test_a_team_is_given_a_model_once_and_again_when_it_changed() -> None:
    model, noted = Denoiser(), Noted()
    workers: Any = noted
    team = Team(workers, ParallelConfig(components=1), CPU)
    wiring = Wiring(model)
    for _ in range(2):
        layout = team.lay_out("unet", model, lambda: divide(model, 1, X))
        team.make_runner("unet", model, wiring, layout)
    team.forget("unet")
    team.lay_out("unet", model, lambda: layout)
    team.finish()
    assert noted.said == [
        ("give_model", "unet"),
        ("open_lane", "unet/0", "unet"),
        ("await_lane", "unet"),
        ("open_lane", "unet/1", "unet"),
        ("await_lane", "unet"),
        ("give_model", "unet"),
        ("finish",),
    ]
    assert team.resident_bytes("unet") == (8,)
    assert team.resident_bytes("vae") == ()
