"""What a run of a tiny denoiser needs: weights that let everything through, noise, times, conditioning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Denoiser:
    """Hold a model and what one run of it starts from and keeps: noise, denoising times, conditioning."""

    model: nn.Module
    noise: Tensor
    times: tuple[float, ...]
    conditioning: dict[str, Any] = field(default_factory=dict)

    def inputs(self, sample: Tensor, step: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one call."""
        return (sample,), {"timestep": torch.tensor([self.times[step]] * len(sample)), **self.conditioning}

    def predict(self, sample: Tensor, step: int) -> Tensor:
        """Return the predicted noise, in the shape of ``sample``: a learned variance is cut off."""
        args, kwargs = self.inputs(sample, step)
        output: Tensor = self.model(*args, **kwargs, return_dict=False)[0]
        return output[tuple(slice(size) for size in sample.shape)]


WHOLE_TIMES = tuple(range(900, 0, -100))
FLOAT_TIMES = tuple(float(time) for time in WHOLE_TIMES)
SHARES = tuple(0.001 * time for time in WHOLE_TIMES)


def draw(*shape: int, seed: int = 1) -> Tensor:
    """Return normal noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomize(model: nn.Module) -> nn.Module:
    """Draw all weights anew: diffusers starts from zeros in places, where nothing would pass."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, each in model.named_parameters():
            values = torch.randn(each.shape, generator=generator)
            if each.ndim > 1:
                each.copy_(values / each[0].numel() ** 0.5)
            else:
                each.copy_(0.2 * values + name.endswith("weight"))
    return model.eval().requires_grad_(False)
