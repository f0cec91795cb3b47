"""A pipeline that samples vectors as diffusers' pipelines do: guidance, schedulers, strength, callbacks."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.unit.parallel.small import Block, Denoiser, Scheduler

WIDTH = 8


class Noisy(Scheduler):
    """Take steps with noise."""

    def step(self, estimate: Tensor, time: Tensor, sample: Tensor, generator: Any = None) -> Tensor:
        """Return the next sample."""
        return super().step(estimate, time, sample) + 0.1 * torch.randn(sample.shape, generator=generator)


class VectorPipeline:
    """Denoise vectors [B, width] with one denoiser, or with a second one for the later half of the steps.

    No child of ``DiffusionPipeline``, which takes scripts many seconds to import.
    """

    def __init__(
        self, transformer: nn.Module, scheduler: Any, transformer_2: nn.Module | None = None
    ) -> None:
        self.transformer, self.scheduler, self.transformer_2 = transformer, scheduler, transformer_2
        self._interrupt = False

    @property
    def components(self) -> dict[str, Any]:
        """Return the parts by name."""
        return {
            "transformer": self.transformer,
            "scheduler": self.scheduler,
            "transformer_2": self.transformer_2,
        }

    @torch.no_grad()
    def __call__(
        self,
        batch: int = 2,
        steps: int = 6,
        *,
        seed: int | None = 0,
        guidance: float | None = None,
        strength: float = 1.0,
        sigmas: list[float] | None = None,
        callback: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return vectors [batch, width]; without a seed the process's own random numbers are drawn."""
        self._interrupt = False
        times, steps = self._plan(steps, strength, sigmas)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        sample = torch.randn(batch, WIDTH, generator=generator)
        for number, now in enumerate(times):
            if self._interrupt:
                continue
            late = self.transformer_2 is not None and number >= steps // 2
            sample = self._advance(
                self.transformer_2 if late else self.transformer, sample, now, guidance, generator
            )
            if callback is not None:
                callback(number)
        return sample

    def _plan(self, steps: int, strength: float, sigmas: list[float] | None) -> tuple[Any, int]:
        scheduler = self.scheduler
        if sigmas is None:
            scheduler.set_timesteps(steps)
        elif "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:
            scheduler.set_timesteps(sigmas=sigmas)
        else:
            raise ValueError("this scheduler takes no sigmas")
        steps = len(scheduler.timesteps) if sigmas else steps
        first = (steps - int(steps * strength)) * getattr(scheduler, "order", 1)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        return scheduler.timesteps[first:], steps

    def _advance(self, denoiser: Any, sample: Tensor, now: Tensor, guidance: Any, generator: Any) -> Tensor:
        scheduler = self.scheduler
        taken = inspect.signature(scheduler.step).parameters
        given = (
            scheduler.scale_model_input(sample, now) if hasattr(scheduler, "scale_model_input") else sample
        )
        estimate = denoiser(given, now)[0]
        if guidance is not None:
            estimate = estimate + guidance * (denoiser(given, now, scale=0.5)[0] - estimate)
        extra: dict[str, Any] = {"generator": generator} if "generator" in taken else {}
        if "eta" in taken:
            extra["eta"] = 1.0
        found = scheduler.step(estimate, now, sample, **extra)
        following: Tensor = getattr(found, "prev_sample", found)
        return following


def build_pipeline(scheduler: Any = None, *, second: bool = False) -> VectorPipeline:
    """Return a pipeline with tiny denoisers, the same in every process."""
    later = Denoiser(blocks=6, seed=1) if second else None
    return VectorPipeline(Denoiser(blocks=6), scheduler or Scheduler(), later)


class Fragile(Block):
    """Fail in some way in a worker process."""

    def __init__(self, width: int, way: str) -> None:
        super().__init__(width)
        self.way = way

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """Return hidden [B, width], or do not."""
        if dist.is_initialized() and dist.get_rank() > 0 and self.way:
            fail(self.way)
        return super().forward(hidden, time)


def fail(way: str) -> None:
    """Raise, end or sleep."""
    if way == "raise":
        raise ValueError("the moon is in the wrong quarter")
    if way == "exit":
        os._exit(3)
    time.sleep(600.0)


def build_fragile(way: str) -> VectorPipeline:
    """Return a pipeline whose denoiser fails in the workers."""
    pipe = build_pipeline()
    pipe.transformer.blocks[4] = Fragile(WIDTH, way)
    pipe.transformer.blocks[1] = Fragile(WIDTH, way)
    return pipe


class Sealed:
    """Hold an estimate where nobody looks."""

    def __init__(self, estimate: Tensor) -> None:
        self.estimate = estimate

    def __getitem__(self, place: int) -> Tensor:
        """Return the estimate."""
        return self.estimate


class Sealing(nn.Module):
    """Return estimates in objects of an unknown class."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Denoiser(blocks=6)

    def forward(self, sample: Tensor, timestep: Any) -> Sealed:
        """Return the estimate, sealed."""
        return Sealed(self.inner(sample, timestep)[0])


def list_children(parent: int | None = None) -> list[int]:
    """Return the processes that a process has started and that still run, zombies included.

    Python's own keeper of shared memory, which the groups of other tests leave behind, is not counted.
    """
    found = []
    for each in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{each}/stat", encoding="utf-8") as file:
                after_name = file.read().rpartition(") ")[2].split()
            with open(f"/proc/{each}/cmdline", "rb") as file:
                command = file.read()
        except OSError:
            continue
        if int(after_name[1]) == (parent or os.getpid()) and b"resource_tracker" not in command:
            found.append(int(each))
    return found
