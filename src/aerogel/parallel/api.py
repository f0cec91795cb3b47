"""The public call: divide a pipeline's denoisers over devices for the time of a block."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from aerogel.core.config import validate
from aerogel.core.devices import limit_threads
from aerogel.errors import DeviceError, MismatchError, compose
from aerogel.parallel.clock import Clock, is_followed
from aerogel.parallel.company import Alone, Company, Ranks, Team
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.families import find_denoisers, require_parallel
from aerogel.parallel.latencies import measure_calls
from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.plan import Plan
from aerogel.parallel.session import Schedule, Session, is_divided
from aerogel.parallel.stats import Stats, sum_up
from aerogel.parallel.trace import trace_calls
from aerogel.parallel.workers import Workers

# What timing the parts of a fast denoiser may take: a part in a hundred more on one device is lost on all.
_SPARE_S = 4.0


@dataclass
class Run:
    """Give the plan and the figures of a parallel run; both grow with what the pipeline is asked for."""

    config: ParallelConfig
    company: Company
    clock: Clock
    sessions: dict[str, Session] = field(default_factory=dict)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the pipeline run on one device alone for the time of the block, to compare with it."""
        for session in self.sessions.values():
            session.close()
        self.clock.remove()
        try:
            yield
        finally:
            self.clock.attach()
            for session in self.sessions.values():
                session.reopen()

    @property
    def plan(self) -> Plan:
        """Return who runs what, for each denoiser and input shape met so far."""
        layouts = {name: session.layouts for name, session in self.sessions.items()}
        return Plan(layouts, self.config.stride)

    @property
    def stats(self) -> Stats:
        """Return what the rounds so far cost and saved."""
        return Stats(
            tuple(
                sum_up(
                    name,
                    lane.layout,
                    lane.timings,
                    stride=self.config.stride,
                    warmup=self.config.warmup,
                    last=lane.timings[lane.begun :],
                    resident_bytes=self.company.resident_bytes(name),
                )
                for name, session in self.sessions.items()
                for lane in session.lanes
            )
        )


@contextmanager
def parallelize(
    pipe: Any,
    components: int | None = None,
    *,
    stride: int = 1,
    warmup: int = 1,
    config: ParallelConfig | None = None,
    **options: Any,
) -> Iterator[Run]:
    """Run the denoisers of a diffusers pipeline on several devices for the time of a ``with`` block.

    Inside the block the pipeline is called as ever and returns what it ever did; after it every ``forward``
    is what it was. Under ``torchrun`` or ``accelerate launch`` every process calls this alike and takes a
    part; otherwise worker processes are started on this machine, on the next CUDA devices or on the CPU.
    ``options`` are the other fields of :class:`ParallelConfig`; ``config`` replaces them all.

    Implements AsyncDiff (arXiv 2406.06911): after ``warmup`` exact steps every part runs at once, on what the
    part before it gave one step ago.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the pipeline has no denoiser.
        MismatchError: something else steers the denoiser: offloading, compilation, a cache of steps,
            another block.
        DeviceError: there are too few devices, or a denoiser cannot be divided.
        RankError: another process failed, ended or fell out of step.
    """
    chosen = config or ParallelConfig(components=components, stride=stride, warmup=warmup, **options)
    validate(chosen)
    denoisers = find_denoisers(pipe)
    _require_ready(pipe, denoisers)
    where = next(next(iter(denoisers.values())).parameters()).device
    if where.type not in ("cpu", "cuda"):
        raise DeviceError(
            compose("a pipeline on the CPU or a CUDA device", f"{where}", 'move it with pipe.to("cpu")')
        )
    if Workers.lead_here():
        raise MismatchError(
            compose("one block with workers at a time", "a second inside the first", "leave that one first")
        )
    with ExitStack() as stack:
        if is_launched():
            chosen = _count_ranks(chosen, where)
            company: Any = stack.enter_context(_join_ranks(pipe, chosen, where))
        else:
            chosen = _count_devices(chosen, where)
            alone = chosen.components == chosen.stride == 1
            company = Alone(chosen) if alone else stack.enter_context(_start_workers(chosen, where))
        yield stack.enter_context(attach(pipe, denoisers, chosen, company))


@contextmanager
def simulate(
    pipe: Any,
    components: int = 2,
    *,
    stride: int = 1,
    warmup: int = 1,
    config: ParallelConfig | None = None,
    **options: Any,
) -> Iterator[Run]:
    """Let one process give exactly what :func:`parallelize` would give on several devices.

    The oracle of the distributed run and a preview of its quality; nothing is faster.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the pipeline has no denoiser.
        MismatchError: something else steers the denoiser.
        DeviceError: a denoiser cannot be divided.
    """
    chosen = config or ParallelConfig(components=components, stride=stride, warmup=warmup, **options)
    validate(chosen)
    if chosen.components is None:
        chosen = replace(chosen, components=2)
    denoisers = find_denoisers(pipe)
    _require_ready(pipe, denoisers)
    with attach(pipe, denoisers, chosen, Alone(chosen)) as run:
        yield run


@contextmanager
def attach(
    pipe: Any, denoisers: dict[str, nn.Module], config: ParallelConfig, company: Company
) -> Iterator[Run]:
    """Stand before the denoisers and the scheduler of ``pipe`` with ``company`` for the time of the block."""
    with ExitStack() as stack:
        clock = Clock(pipe.scheduler, company.watch, lambda: pipe.scheduler)
        stack.callback(clock.remove)
        run = Run(config, company, clock)
        for name, denoiser in denoisers.items():
            run.sessions[name] = session = _open_session(name, denoiser, clock, config, company)
            stack.callback(session.close)
        yield run


def _open_session(
    name: str, denoiser: nn.Module, clock: Clock, config: ParallelConfig, company: Company
) -> Session:
    def lay_out_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        def make() -> Layout:
            root = trace_calls(denoiser, args, kwargs)
            measured = config.balance == "measured"
            times = measure_calls(denoiser, root, (args, kwargs), spare_s=_SPARE_S) if measured else None
            return lay_out(root, config.components or 2, fold=config.fold, speeds=config.speeds, times=times)

        return company.lay_out(name, denoiser, make)

    return Session(
        denoiser,
        clock,
        Schedule(config.warmup, config.stride, config.time_shift, config.stride2),
        lay_out_call,
        lambda wiring, layout: company.make_runner(name, denoiser, wiring, layout),
        lambda: company.forget(name),
    )


def _require_ready(pipe: Any, denoisers: dict[str, nn.Module]) -> None:
    for name, denoiser in denoisers.items():
        require_parallel(name, denoiser)
    require_scheduler(pipe)
    if is_followed(pipe.scheduler) or any(map(is_divided, denoisers.values())):
        raise MismatchError(
            compose(
                "a pipeline that no other block has, nor its denoisers and its scheduler",
                f"a {type(pipe).__name__} inside of one",
                "leave that block first; call run.paused() in it to compare with the pipeline alone",
            )
        )


def require_scheduler(pipe: Any) -> None:
    """Check that steps can be told from the pipeline's scheduler.

    Raises:
        DeviceError: there is none that steps.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if not (hasattr(scheduler, "set_timesteps") and hasattr(scheduler, "step")):
        raise DeviceError(
            compose(
                "a pipeline whose scheduler has set_timesteps and step",
                f"{type(pipe).__name__} with {type(scheduler).__name__}",
                "pass the pipeline that holds denoiser and scheduler",
            )
        )


def is_launched() -> bool:
    """Tell whether this is a process of a distributed run."""
    return dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _count_ranks(config: ParallelConfig, where: torch.device) -> ParallelConfig:
    world = dist.get_world_size() if dist.is_initialized() else int(os.environ["WORLD_SIZE"])
    components = config.components or max(2, world - config.stride + 1)
    needed = components + config.stride - 1
    if needed != world:
        fits = world - config.stride + 1
        remedy = f"start the script with torchrun --nproc-per-node {needed}"
        if fits > 1:
            remedy += f", or pass components={fits}"
        elif world == 1:
            remedy += ", or call torch.distributed.destroy_process_group() first to have workers started"
        raise DeviceError(compose(f"components + stride - 1 = {needed} processes", f"{world}", remedy))
    back_ends = dist.get_backend_config() if dist.is_initialized() else ""
    if back_ends and f"{where.type}:" not in back_ends:
        raise DeviceError(
            compose(
                f"a process group whose back end moves tensors of {where}, as the pipeline has them",
                f"one with {back_ends}",
                'call init_process_group("cpu:gloo,cuda:nccl"), or leave it to parallelize',
            )
        )
    return replace(config, components=components)


def _count_devices(config: ParallelConfig, where: torch.device) -> ParallelConfig:
    count = torch.cuda.device_count() if where.type == "cuda" else None
    components = config.components or (2 if count is None else max(1, count - config.stride + 1))
    needed = components + config.stride - 1
    if count is not None and needed > count:
        raise DeviceError(
            compose(
                f"{needed} CUDA devices, for {components} components at stride {config.stride}",
                f"{count}",
                "use fewer components or a stride of 1, or several machines with torchrun",
            )
        )
    return replace(config, components=components)


@cache
def _meet() -> tuple[Any, int, int]:
    """Return where the processes of this launch meet, the rank of this one, and how many they are.

    Kept for the next block: the store of a script that torchrun did not start lives in the process of rank 0.
    """
    found: tuple[Any, int, int] = next(iter(rendezvous("env://")))
    return found


@contextmanager
def _join_ranks(pipe: Any, config: ParallelConfig, where: torch.device) -> Iterator[Ranks]:
    ours, hook = not dist.is_initialized(), sys.excepthook
    if ours:
        store, rank, world = _meet()
        # Every rank counts itself in; a later group must not read the addresses of an earlier one.
        number = (store.add("aerogel", 1) - 1) // world
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            store=PrefixStore(f"aerogel/{number}", store),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=config.timeout_s),
        )
    try:
        ranks = Ranks(pipe, config, where)
        yield ranks
        ranks.finish()
    finally:
        if ours:
            dist.destroy_process_group()
            sys.excepthook = hook


@contextmanager
def _start_workers(config: ParallelConfig, where: torch.device) -> Iterator[Team]:
    world = (config.components or 2) + config.stride - 1
    threads = config.threads or max(1, torch.get_num_threads() // world)
    if where.type == "cuda":
        first = where.index or 0
        count = torch.cuda.device_count()
        devices = [torch.device("cuda", (first + number) % count) for number in range(world)]
    else:
        devices = [where] * world
    with limit_threads(threads if where.type == "cpu" else torch.get_num_threads()):
        workers = Workers(devices, threads=threads, timeout_s=config.timeout_s)
        try:
            team = Team(workers, config, devices[0])
            yield team
            team.finish()
        finally:
            workers.stop()
