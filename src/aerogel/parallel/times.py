"""Give a denoiser another step's time: find how the pipeline writes times, and write one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What denoisers call their time. Z-Image says t, Wuerstchen r; UniDiffuser has a second one for its text.
TIME_NAMES = ("timestep", "timesteps", "timestep_ratio", "timestep_img", "vision_timesteps", "t", "r")

# How pipelines hand on a scheduler's time: as it is, as a share of 1,000, or as the share that is over.
_WRITINGS: tuple[Callable[[float], float], ...] = (
    lambda time: time,
    lambda time: time / 1000.0,
    lambda time: 1.0 - time / 1000.0,
)


class TimeArgument:
    """Find a denoiser's time among its arguments, and put another in its place."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        names = list(inspect.signature(forward).parameters)
        self._name = next((name for name in TIME_NAMES if name in names), None)
        self._place = names.index(self._name) if self._name else -1

    def shift(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], now: float, then: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return the arguments with the time ``then`` where they have ``now``.

        Whatever else a time tensor holds stays (the zeros of frames that are given, for one). None is
        returned where no time is found, or it is written in a way that is not known.
        """
        if self._name is None:
            return None
        if self._name in kwargs:
            written = _rewrite(kwargs[self._name], now, then)
            return None if written is None else (args, {**kwargs, self._name: written})
        if self._place < len(args):
            written = _rewrite(args[self._place], now, then)
            if written is None:
                return None
            return (*args[: self._place], written, *args[self._place + 1 :]), kwargs
        return None


def _rewrite(value: Any, now: float, then: float) -> Any:
    """Return ``value`` with ``then`` where it says ``now``, or None where it does not say so."""
    for write in _WRITINGS:
        if isinstance(value, Tensor):
            expected = torch.tensor(write(now), dtype=torch.float64).to(value.dtype)
            same = torch.isclose(value, expected.to(value.device), rtol=1e-4, atol=1e-6)
            if bool(same.any()):
                other = torch.tensor(write(then), dtype=torch.float64).to(value)
                return torch.where(same, other, value)
        elif isinstance(value, (int, float)) and abs(value - write(now)) <= 1e-4 * max(1.0, abs(value)):
            return type(value)(write(then))
    return None
