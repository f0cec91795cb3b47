"""Hold a parallel run against the sequential one: pictures, their likeness, and the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from aerogel.core.devices import limit_threads
from aerogel.parallel.api import Run, parallelize, simulate
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.plan import Plan
from aerogel.parallel.sampling import Pictures
from aerogel.parallel.stats import Stats

Draw = Callable[[], Pictures]


@dataclass(frozen=True)
class Speed:
    """Hold seconds per call of the pipeline, run by run, the kinds in turn.

    ``alone`` is one process with the threads of one of the parallel processes, ``all_threads`` one process
    with the threads of all of them together; on CUDA the two are the same.
    """

    alone: tuple[float, ...]
    all_threads: tuple[float, ...]
    parallel: tuple[float, ...]

    @property
    def over_alone(self) -> float:
        """Return how many times sooner the parallel run ends than one process of as many threads as each."""
        return median(self.alone) / median(self.parallel)

    @property
    def over_all_threads(self) -> float:
        """Return how many times sooner it ends than one process with all threads."""
        return median(self.all_threads) / median(self.parallel)


@dataclass(frozen=True)
class Trial:
    """Hold what a run in turn and a parallel one gave.

    ``exact`` tells whether the parallel pictures are those of the simulator, bit for bit; ``difference`` is
    the largest one between the two.
    """

    sequential: Pictures
    parallel: Pictures
    exact: bool
    difference: float
    plan: Plan
    stats: Stats


def verify(pipe: Any, draw: Draw, config: ParallelConfig) -> Trial:
    """Sample in turn, in parallel and simulated, and compare.

    Raises:
        AerogelError: as :func:`aerogel.parallelize`.
    """
    sequential = draw()
    with parallelize(pipe, config=config) as run:
        parallel = draw()
        plan, stats, threads = run.plan, run.stats, torch.get_num_threads()
    with limit_threads(threads), simulate(pipe, config=run.config):
        expected = draw()
    difference = float(np.abs(parallel - expected).max())
    exact = bool(np.array_equal(parallel, expected))
    return Trial(sequential, parallel, exact, difference, plan, stats)


def measure_speed(
    pipe: Any, draw: Callable[[], Any], config: ParallelConfig, *, repeats: int = 5
) -> tuple[Speed, Run]:
    """Time calls of the pipeline in turn and in parallel, interleaved, after one call of each kind.

    Raises:
        AerogelError: as :func:`aerogel.parallelize`.
    """
    alone: list[float] = []
    everything: list[float] = []
    parallel: list[float] = []
    on_cpu = next(iter(_devices(pipe))).type == "cpu"
    with parallelize(pipe, config=config) as run:
        threads = torch.get_num_threads()
        whole = threads * ((run.config.components or 1) + run.config.stride - 1)
        for number in range(repeats + 1):
            parallel.append(_time(draw))
            with run.paused():
                alone.append(_time(draw))
                if on_cpu:
                    with limit_threads(whole):
                        everything.append(_time(draw))
            if number == 0:
                parallel, alone, everything = [], [], []
    return Speed(tuple(alone), tuple(everything or alone), tuple(parallel)), run


def _devices(pipe: Any) -> list[torch.device]:
    from aerogel.parallel.families import find_denoisers

    return [next(each.parameters()).device for each in find_denoisers(pipe).values()]


def _time(draw: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    draw()
    return time.perf_counter() - begin
