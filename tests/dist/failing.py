"""Scripts that are interrupted, killed or wrong; run as ``python -m tests.dist.failing <which> <folder>``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from aerogel.errors import AerogelError
from aerogel.parallel import parallelize
from tests.dist.pipelines import build_pipeline, list_children


def wait_for_signal(folder: Path) -> None:
    """Sample without end; note the workers first."""
    pipe = build_pipeline()
    with parallelize(pipe, 2, threads=1):
        pipe()
        (folder / "partial").write_text(" ".join(map(str, list_children())), encoding="utf-8")
        (folder / "partial").rename(folder / "workers")
        while True:
            pipe()


def lose_a_rank(folder: Path) -> None:
    """Kill the last rank of a launched run in its third step; the others note what they are told."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    pipe = build_pipeline()

    def end(step: int) -> None:
        if rank == world - 1 and step == 2:
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with parallelize(pipe, threads=1, timeout_s=20.0):
            pipe(callback=end)
    except AerogelError as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"wait": wait_for_signal, "lose": lose_a_rank}[sys.argv[1]](Path(sys.argv[2]))
