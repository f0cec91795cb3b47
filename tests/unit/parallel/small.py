"""A denoiser of four blocks and a scheduler, small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.partition import weigh
from aerogel.parallel.trace import trace_calls


class Block(nn.Module):
    """Add a bent linear map of the input, moved by the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """Return hidden [B, width]."""
        return hidden + torch.tanh(self.linear(hidden) + time)


class Denoiser(nn.Module):
    """Run blocks in a chain; the last also reads what the first gave, as in a U-Net."""

    def __init__(self, blocks: int = 4, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.calls = 0

    def forward(self, sample: Tensor, timestep: Any, scale: float = 1.0) -> tuple[Tensor]:
        """Return (estimate [B, width],)."""
        self.calls += 1
        time = torch.as_tensor(timestep, dtype=sample.dtype, device=sample.device) / 1000.0
        hidden, skip = sample, None
        for block in self.blocks[:-1]:
            hidden = block(hidden, time)
            skip = hidden if skip is None else skip
        return (scale * self.blocks[-1](hidden + skip, time),)


class Scheduler:
    """Take plain steps down a list of times."""

    def __init__(self) -> None:
        self.timesteps = torch.zeros(0)
        self.begin_index: int | None = None

    def set_timesteps(self, steps: int) -> None:
        """Spread ``steps`` times over 1,000."""
        self.timesteps = torch.linspace(900, 100, steps).round()

    def step(self, estimate: Tensor, time: Tensor, sample: Tensor) -> Tensor:
        """Return the next sample."""
        return sample - 0.1 * estimate


def divide(denoiser: nn.Module, components: int, sample: Tensor, **options: Any) -> Layout:
    """Return a layout of ``denoiser`` for inputs like ``sample``."""
    return lay_out(trace_calls(denoiser, (sample, torch.tensor(1.0)), {}), components, **options)


def own(layout: Layout, *owners: int) -> Layout:
    """Return ``layout`` with the units for other owners, all units of the same cost."""
    partition = weigh(layout.flow, owners, [1.0] * len(owners), [1.0] * layout.partition.components)
    return Layout(layout.flow, partition)


def denoise(denoiser: nn.Module, scheduler: Scheduler, sample: Tensor, steps: int = 6) -> Tensor:
    """Return every sample [steps, B, width] of a run."""
    scheduler.set_timesteps(steps)
    found = []
    with torch.no_grad():
        for time in scheduler.timesteps:
            sample = scheduler.step(denoiser(sample, time)[0], time, sample)
            found.append(sample)
    return torch.stack(found)
