"""Worker processes give, bit for bit, what the simulator gives, and leave a pipeline as it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from aerogel.parallel import ParallelConfig, Run, parallelize, simulate
from tests.dist.pipelines import VectorPipeline, build_pipeline, list_children

# diffusers hands a tensor to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Opened = tuple[VectorPipeline, Run]

CONFIGS = {
    "three components": ParallelConfig(components=3, warmup=1, threads=1),
    "stride of two": ParallelConfig(components=2, stride=2, warmup=2, threads=1),
}
WAYS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "another batch": (DDIMScheduler, {"batch": 1}),
    "guidance in two calls": (DDIMScheduler, {"guidance": 3.0}),
    "second order": (HeunDiscreteScheduler, {"steps": 4}),
    "image to image": (EulerDiscreteScheduler, {"steps": 8, "strength": 0.6}),
    "image to image without a begin": (DDIMScheduler, {"steps": 8, "strength": 0.6}),
    "sigmas": (FlowMatchEulerDiscreteScheduler, {"sigmas": [1.0, 0.8, 0.5, 0.3, 0.1]}),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Return a pipeline of two denoisers inside its block."""
    torch.set_num_threads(1)
    pipe = build_pipeline(second=True)
    with parallelize(pipe, config=request.param) as run:
        yield pipe, run


def test_a_warm_up_to_the_end_is_sequential_sampling_and_leaves_no_trace() -> None:
    torch.set_num_threads(1)
    pipe = build_pipeline(second=True)
    pipe.transformer.blocks[0].forward = own = pipe.transformer.blocks[0].forward
    plain = pipe(guidance=2.0)
    threads, environment = threading.active_count(), dict(os.environ)
    with parallelize(pipe, 2, warmup=99) as run:
        found = pipe(guidance=2.0)
        assert any("forward" in vars(each) for each in pipe.transformer_2.modules())
        (child,) = list_children()
    assert torch.equal(found, plain)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not list_children()
    assert (threading.active_count(), dict(os.environ)) == (threads, environment)
    assert not torch.distributed.is_initialized()
    holders = [each for each in (*pipe.transformer.modules(), *pipe.transformer_2.modules())]
    assert [each for each in holders if "forward" in vars(each)] == [pipe.transformer.blocks[0]]
    assert vars(pipe.transformer.blocks[0])["forward"] is own
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))
    assert torch.equal(pipe(guidance=2.0), plain)
    assert run.stats.lanes


def expect(opened: Opened, **call: Any) -> Tensor:
    """Return what the simulator gives for the pipeline as it is now."""
    pipe, run = opened
    with run.paused(), simulate(pipe, config=run.config):
        return pipe(**call)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_sample_equals_its_simulator(way: str, opened: Opened) -> None:
    pipe, run = opened
    build, call = WAYS[way]
    pipe.scheduler = build()
    found = [pipe(**call), pipe(**call, seed=1), pipe(**call)]
    assert torch.equal(found[0], expect(opened, **call))
    assert torch.equal(found[1], expect(opened, **call, seed=1))
    assert torch.equal(found[2], found[0])
    with run.paused():
        assert not torch.equal(pipe(**call), found[0])
    assert not any(session.untimed for session in run.sessions.values())


def test_a_changed_weight_reaches_the_workers(opened: Opened) -> None:
    pipe, _ = opened
    before = pipe()
    for block in pipe.transformer.blocks:
        block.linear.weight.data *= 1.25  # counted nowhere
    after = pipe()
    assert not torch.equal(after, before)
    assert torch.equal(after, expect(opened))


def test_weights_are_sent_once(opened: Opened) -> None:
    pipe, run = opened
    lanes = [list(session.lanes) for session in run.sessions.values()]
    pipe()
    pipe()
    assert [list(session.lanes) for session in run.sessions.values()] == lanes


def test_an_image_after_a_cancelled_one_is_sound(opened: Opened) -> None:
    pipe, _ = opened

    def cancel(step: int) -> None:
        if step == 3:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        pipe(callback=cancel)
    assert torch.equal(pipe(), expect(opened))


def test_plan_and_stats_tell_what_was_done(opened: Opened) -> None:
    pipe, run = opened
    pipe()
    assert set(run.plan.to_dict()) == {"transformer", "transformer_2"}
    first, later = run.stats.lanes[0], run.stats.lanes[-1]
    assert (first.denoiser, later.denoiser) == ("transformer", "transformer_2")
    whole = sum(each.nbytes for each in pipe.transformer.parameters())
    assert len(first.resident_bytes) == len(list_children())
    assert all(0 < held < whole for held in first.resident_bytes)
    assert sum(lane.rounds for lane in run.stats.lanes) > 0
