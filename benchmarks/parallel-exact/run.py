"""Ranks against the simulator, bit for bit: tiny denoisers, 2 to 4 components, both strides, three warm-ups.

    python benchmarks/parallel-exact/run.py [--denoiser NAME ...]

Every run samples eight steps on gloo processes of this machine, one thread each. A run is a mismatch unless
all ranks have the simulator's latents after every step, bit for bit; those of sequential sampling where the
warm-up lasts to the end, and others where it does not; and unless every rank has sent the bytes that the plan
says. The denoisers are diffusers' own classes, small and with random weights. Exits with 1 after a mismatch.
Writes results.json beside this file and ends its output with that JSON on one line. --denoiser runs some of
them only and writes no results.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from aerogel.core.environment import environment  # noqa: E402 - the denoisers are found from the root
from aerogel.core.folders import write_text_atomic  # noqa: E402
from tests.dist.exact import STEPS, Setting, build, find_faults, lay_out_case, run_on_rank  # noqa: E402
from tests.parallel.denoisers import CASES  # noqa: E402

COMPONENTS, STRIDES, WARMUPS = (2, 3, 4), (1, 2), (1, 3, STEPS)
PATIENCE_S = 300.0


class Crew:
    """Keep processes that form gloo groups of any size up to their own number."""

    def __init__(self, size: int) -> None:
        context = get_context("spawn")
        self._orders = [context.Queue() for _ in range(size)]
        self._answers = context.Queue()
        self._processes = [
            context.Process(target=serve, args=(rank, orders, self._answers), daemon=True)
            for rank, orders in enumerate(self._orders)
        ]
        for process in self._processes:
            process.start()

    def gather(self, world: int, port: int, work: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what ``work(*args)`` returns on each rank of a group of ``world``."""
        for orders in self._orders[:world]:
            orders.put((world, port, work, args))
        found: dict[int, Any] = {}
        while len(found) < world:
            try:
                rank, answer, failure = self._answers.get(timeout=PATIENCE_S)
            except queue.Empty:
                codes = [process.exitcode for process in self._processes]
                raise SystemExit(f"no answer within {PATIENCE_S:.0f} s; exit codes: {codes}") from None
            if failure:
                raise SystemExit(f"rank {rank}:\n{failure}")
            found[rank] = answer
        return [found[rank] for rank in range(world)]

    def dismiss(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.join()


def serve(rank: int, orders: Any, answers: Any) -> None:
    """Do what is ordered, in a group of the size that is asked for, for as long as the process lives."""
    torch.set_num_threads(1)
    joined = 0
    while True:
        world, port, work, args = orders.get()
        try:
            if world != joined:
                join_group(rank, world, port)
                joined = world
            answers.put((rank, work(*args), None))
        except Exception:  # noqa: BLE001 - told to the first process, which ends with it
            answers.put((rank, None, traceback.format_exc()))


def join_group(rank: int, world: int, port: int) -> None:
    """Leave the group of before, if there is one, for a new one."""
    if dist.is_initialized():
        dist.destroy_process_group()
    address, patience = f"tcp://127.0.0.1:{port}", timedelta(seconds=PATIENCE_S)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=patience)


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_denoiser(crew: Crew, port: int, settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Run one denoiser at settings of one number of devices; return the faults of each run."""
    work = [(each, lay_out_case(each.case, each.components)) for each in settings]
    ranks = crew.gather(settings[0].devices, port, run_on_rank, work)
    return {
        str(setting): find_faults(setting, layout, trails)
        for (setting, layout), *trails in zip(work, *ranks, strict=True)
    }


def run_all(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return the faults of every run of every denoiser."""
    grid = [(n, s, w) for n in COMPONENTS for s in STRIDES for w in WARMUPS]
    worlds = sorted({n + s - 1 for n, s, _ in grid})
    found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    crew, begin = Crew(worlds[-1]), time.perf_counter()
    try:
        for world in worlds:
            port = find_port()
            for name in names:
                settings = [Setting(name, n, s, w) for n, s, w in grid if n + s - 1 == world]
                faults = run_denoiser(crew, port, settings)
                found[name].update(faults)
                report(world, name, faults, time.perf_counter() - begin)
    finally:
        crew.dismiss()
    return found


def report(world: int, name: str, faults: dict[str, list[str]], seconds: float) -> None:
    """Print how one denoiser did on ``world`` ranks."""
    wrong = sum(map(bool, faults.values()))
    print(f"{seconds:6.0f} s  {world} ranks  {name:22s} {len(faults)} runs, {wrong} mismatches", flush=True)
    for setting, each in faults.items():
        for fault in each:
            print(f"    {setting}: {fault}", flush=True)


def sum_up(found: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """Return the figures."""
    denoisers = {}
    for name, runs in found.items():
        model = build(name).model
        denoisers[name] = {
            "class": type(model).__name__,
            "parameters": sum(each.numel() for each in model.parameters()),
            "runs": len(runs),
            "mismatches": {setting: faults for setting, faults in runs.items() if faults},
        }
    return {
        "cases": sum(each["runs"] for each in denoisers.values()),
        "mismatches": sum(len(each["mismatches"]) for each in denoisers.values()),
        "classes": len({each["class"] for each in denoisers.values()}),
        "grid": {"components": COMPONENTS, "strides": STRIDES, "warmups": WARMUPS, "steps": STEPS},
        "denoisers": denoisers,
    }


def main() -> int:
    """Run the benchmark from the command line; return 1 if there is a mismatch."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    every = [case.name for case in CASES]
    parser.add_argument("--denoiser", nargs="+", default=every, choices=every, metavar="NAME")
    names = parser.parse_args().denoiser
    os.environ.setdefault("PYTHONWARNINGS", "ignore:In CPU autocast")  # for the ranks: a denoiser asks for it
    torch.set_num_threads(1)
    results = {"figures": sum_up(run_all(names)), "environment": environment()}
    if set(names) == set(every):
        text = json.dumps(results, indent=2, sort_keys=True)
        write_text_atomic(Path(__file__).parent / "results.json", text + "\n")
    print(json.dumps(results, sort_keys=True))
    return 1 if results["figures"]["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
