"""What every rank does in test_launched.py: ``torchrun ... -m tests.dist.launched <folder>``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from aerogel.parallel import Run, parallelize, simulate
from tests.dist.pipelines import Noisy, VectorPipeline, build_pipeline


class Stop(Exception):
    """Be raised by a callback."""


def sample(pipe: VectorPipeline, **call: Any) -> list[list[float]]:
    """Return the numbers of one call."""
    found: list[list[float]] = pipe(**call).tolist()
    return found


def interrupt(pipe: VectorPipeline, rank: int) -> list[int]:
    """Return the steps of an image that rank 0 gives up in the third."""
    steps: list[int] = []

    def note(step: int) -> None:
        steps.append(step)
        if rank == 0 and step == 2:
            pipe._interrupt = True

    pipe(callback=note)
    return steps


def run_all(rank: int) -> dict[str, Any]:
    """Return what this rank has of everything."""
    found: dict[str, Any] = {}
    pipe = build_pipeline(Noisy(), second=True)
    with simulate(pipe, 2):
        found["expected"] = sample(pipe, guidance=2.0)
    torch.seed()
    with parallelize(pipe, threads=1) as run:
        found["interrupted"] = interrupt(pipe, rank)
        found["seeded"] = sample(pipe, guidance=2.0)
        found["unseeded"] = [sample(pipe, seed=None) for _ in range(2)]
        found["seeded apart"] = sample(pipe, seed=rank)
        found["drawn after"] = torch.rand(()).item()
        found["config"] = run.config.components
        before = count_sent(run)
        sample(pipe, guidance=2.0)
        found["sent"] = count_sent(run) - before
        found["planned"] = plan_bytes(run)
    found["left"] = dist.is_initialized()
    with parallelize(pipe, threads=1):
        found["second block"] = sample(pipe, guidance=2.0)
    return found


def count_sent(run: Run) -> int:
    """Return the bytes that this rank has given to torch.distributed for others."""
    return sum(each.runner.exchange.sent_bytes for one in run.sessions.values() for each in one.runners)


def plan_bytes(run: Run) -> int:
    """Return what all ranks send in one image of six steps in two calls: three steps for each denoiser."""
    lanes = run.stats.lanes
    answer = 2 * 8 * 4
    return sum(3 * (lane.bytes_per_round + answer) for lane in lanes)


def run_in_a_group_of_ours() -> dict[str, Any]:
    """Return what two blocks give in one process group, the first of which is left by an exception."""
    dist.init_process_group("gloo")
    pipe = build_pipeline()
    found: dict[str, Any] = {}

    def stop(step: int) -> None:
        if step == 3:
            raise Stop

    try:
        with parallelize(pipe, threads=1):
            pipe(callback=stop)
    except Stop:
        found["stopped"] = True
    with parallelize(pipe, threads=1):
        found["parallel"] = sample(pipe)
    found["left"] = dist.is_initialized()
    with simulate(pipe, 2):
        found["expected"] = sample(pipe)
    dist.barrier()
    dist.destroy_process_group()
    return found


def main() -> None:
    """Write what this rank has."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    found = {"own": run_all(rank), "ours": run_in_a_group_of_ours()}
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
