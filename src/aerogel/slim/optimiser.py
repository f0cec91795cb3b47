"""The optimiser of an aligning, and its rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aerogel.core.devices import is_cuda
from aerogel.slim.config import AlignConfig


def learning_rate(step: int, steps: int, config: AlignConfig) -> float:
    """Return the rate at ``step`` of ``steps``: linear warm-up, then constant or down to zero."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    falls = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return config.lr * falls[config.schedule]


def make_optimiser(
    trained: Mapping[str, nn.Parameter], config: AlignConfig, device: str, shares: Mapping[str, float]
) -> torch.optim.Optimizer:
    """Return the optimiser of parameters by name; each group has the "scale" that its rate is multiplied by.

    ``shares`` multiply the rates of those parameters whose names begin with theirs.
    """
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    groups = []
    for name, each in trained.items():
        scale = _measure_size(each) if config.relative_steps else 1.0
        for start, share in shares.items():
            scale *= share if name.startswith(start) else 1.0
        groups.append({"params": [each], "scale": scale})
    # One kernel for each parameter instead of a dozen, which a GPU would mostly wait for.
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=is_cuda(device) or None)


def _measure_size(weights: Tensor) -> float:
    """Return the root mean square of weights; tensors of zeros count as if they had a little."""
    return max(float(weights.detach().square().mean().sqrt()), 1e-3)
