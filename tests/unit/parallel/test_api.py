"""The public call checks before it starts anything; the simulator stands in for what it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.errors import ConfigError, DataError, DeviceError, MismatchError
from aerogel.parallel import api
from aerogel.parallel.api import Run, is_launched, parallelize, simulate
from aerogel.parallel.config import ParallelConfig
from tests.unit.parallel.small import Denoiser, Scheduler, denoise
from tests.unit.parallel.test_session import by_hand

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Pipeline:
    """Denoise X."""

    def __init__(self, scheduler: Any = None) -> None:
        self.unet, self.scheduler = Denoiser(), scheduler or Scheduler()

    @property
    def components(self) -> dict[str, Any]:
        return {"unet": self.unet, "scheduler": self.scheduler}

    def __call__(self, steps: int = 6) -> Tensor:
        return denoise(self.unet, self.scheduler, X, steps)


@pytest.fixture(autouse=True)
def _no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("a process is started")

    monkeypatch.setattr(api, "Workers", type("Workers", (), {"__init__": start, "lead_here": lambda: False}))
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def _in_a_group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def opening(call: AbstractContextManager[Run]) -> None:
    with call:
        pass


def test_a_simulated_block_gives_what_devices_would() -> None:
    pipe = Pipeline()
    plain = pipe()
    with simulate(pipe, 2) as run:
        assert torch.equal(pipe(), by_hand(pipe.unet, 6, 1))
        assert "device 1" in str(run.plan)
        assert run.stats.lanes[0].rounds == 6
        with run.paused():
            assert torch.equal(pipe(), plain)
        assert torch.equal(pipe(), by_hand(pipe.unet, 6, 1))
        assert run.stats.lanes[0].rounds == 6
    assert torch.equal(pipe(), plain)
    assert "forward" not in vars(pipe.unet)
    assert run.plan.to_dict()["unet"][0]["components"] == 2


def test_without_a_number_two_components_are_simulated() -> None:
    with simulate(Pipeline(), config=ParallelConfig(warmup=2)) as run:
        assert (run.config.components, run.config.warmup) == (2, 2)


def test_one_component_needs_nobody_else() -> None:
    pipe = Pipeline()
    plain = pipe()
    with parallelize(pipe, 1):
        assert torch.equal(pipe(), plain)


def test_measured_times_divide_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        api, "measure_calls", lambda *_, **__: {f"blocks.{each}": 1.0 + 9 * (each == 0) for each in range(4)}
    )
    pipe = Pipeline()
    with simulate(pipe, 2, balance="measured", fold=False) as run:
        pipe()
    owners = run.plan.to_dict()["unet"][0]["units"]
    assert owners["blocks.0"] != owners["blocks.1"] == owners["blocks.3"]


@pytest.mark.parametrize(
    ("pipe", "options", "kind", "told"),
    [
        (Pipeline(), {"components": 0, "stride": 5}, ConfigError, "components(?s:.*)stride"),
        (SimpleNamespace(components={}, scheduler=None), {}, DataError, "no modules at all"),
        (Denoiser(), {}, DataError, "pass the pipeline"),
        (Pipeline(object()), {}, DeviceError, "Pipeline with object"),
        (Pipeline(), {"paralel": 2}, TypeError, "paralel"),
    ],
)
@pytest.mark.parametrize("block", [parallelize, simulate])
def test_what_cannot_be_divided_is_refused_before_anything_starts(
    block: Any, pipe: Any, options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        opening(block(pipe, **options))


def test_a_block_in_a_block_is_refused_and_disturbs_nothing() -> None:
    pipe, other = Pipeline(), Pipeline()
    other.unet = pipe.unet
    with simulate(pipe, 2):
        for again in (simulate(pipe, 2), parallelize(pipe, 2), simulate(other, 2)):
            with pytest.raises(MismatchError, match="no other block"):
                opening(again)
        assert torch.equal(pipe(), by_hand(pipe.unet, 6, 1))
    opening(simulate(other, 2))


def test_an_exception_leaves_the_pipeline_as_it_was() -> None:
    pipe = Pipeline()
    plain = pipe()
    with pytest.raises(InterruptedError), simulate(pipe, 2) as run, run.paused():
        raise InterruptedError
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    assert "forward" not in vars(pipe.unet)
    assert torch.equal(pipe(), plain)


@pytest.mark.parametrize(("world", "launched"), [(None, False), ("1", False), ("2", True)])
def test_a_launched_process_knows_it(
    world: str | None, launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    assert is_launched() == launched


@pytest.mark.parametrize(
    ("world", "options", "told"),
    [
        (2, {"components": 3}, "= 3 processes; got 2; .* --nproc-per-node 3, or pass components=2"),
        (3, {"components": 3, "stride": 2}, "= 4 processes; got 3; .* or pass components=2"),
        (2, {"stride": 2}, "= 3 processes; got 2; .* --nproc-per-node 3$"),
    ],
)
def test_parts_and_processes_have_to_agree(
    world: int, options: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(DeviceError, match=told):
        opening(parallelize(Pipeline(), **options))


@pytest.mark.usefixtures("_in_a_group_of_one")
@pytest.mark.parametrize("options", [{}, {"components": 2}, {"stride": 2}])
def test_a_group_of_one_process_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match=r"processes; got 1; .*destroy_process_group"):
        opening(parallelize(Pipeline(), **options))


def test_there_must_be_devices_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda", 0)
    assert api._count_devices(ParallelConfig(), cuda).components == 2
    assert api._count_devices(ParallelConfig(), torch.device("cpu")).components == 2
    with pytest.raises(DeviceError, match="3 CUDA devices, for 2 components at stride 2; got 2"):
        api._count_devices(ParallelConfig(components=2, stride=2), cuda)


def test_a_pipeline_elsewhere_is_refused() -> None:
    pipe = Pipeline()
    pipe.unet.to("meta")
    with pytest.raises(DeviceError, match="on the CPU or a CUDA device; got meta"):
        opening(parallelize(pipe, 2))
