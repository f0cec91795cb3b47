"""Run a function on a group of gloo processes on this machine and gather what each returns."""

from __future__ import annotations

import queue
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_PATIENCE_S = 120.0


def run_group(world: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what ``work(*args)`` returns on each of ``world`` ranks, in their order."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=_serve, args=(rank, world, port, answers, work, args), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(_next(answers) for _ in range(world))
    finally:
        for process in processes:
            process.join(10.0)
            process.kill()
    return [found[rank] for rank in range(world)]


def _next(answers: Any) -> tuple[int, Any]:
    try:
        rank, answer, failure = answers.get(timeout=_PATIENCE_S)
    except queue.Empty:
        raise AssertionError(f"no answer within {_PATIENCE_S:.0f} s") from None
    assert failure is None, f"rank {rank}:\n{failure}"
    return rank, answer


def _serve(rank: int, world: int, port: int, answers: Any, work: Any, args: Any) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    patience = timedelta(seconds=_PATIENCE_S)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=patience)
    try:
        answers.put((rank, work(*args), None))
        dist.barrier()
    except BaseException:  # noqa: BLE001 - told to the test, which fails with it
        answers.put((rank, None, traceback.format_exc()))
    finally:
        dist.destroy_process_group()
