"""Measure how long each part of a denoiser takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from aerogel.parallel.calls import Arguments
from aerogel.parallel.trace import Call


def measure_calls(
    denoiser: nn.Module,
    root: Call,
    arguments: Arguments,
    *,
    repeats: int = 5,
    warmup: int = 1,
    spare_s: float = 0.0,
) -> dict[str, float]:
    """Return the median seconds of every call in ``root``, by the name of the sub-module.

    The denoiser runs ``warmup`` + ``repeats`` times on ``arguments``, and again, up to four times ``repeats``
    in all, while less than ``spare_s`` seconds have passed; on CUDA every call is waited for.
    """
    names = {call.name for call in root.walk() if "#" not in call.name and call.name}
    spent: dict[str, list[float]] = {name: [] for name in names}
    modules = {name: denoiser.get_submodule(name) for name in names}
    on_cuda = next(denoiser.parameters()).device.type == "cuda"
    handles = [
        handle
        for name, module in modules.items()
        for handle in _watch(module, spent[name].append, synchronize=on_cuda)
    ]
    args, kwargs = arguments
    try:
        with torch.no_grad():
            for _ in range(warmup):
                denoiser(*args, **kwargs)
            for each in spent.values():
                each.clear()
            begin = time.perf_counter()
            for number in range(4 * repeats):
                if number >= repeats and time.perf_counter() - begin > spare_s:
                    break
                denoiser(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: median(each) for name, each in spent.items() if each}


def _watch(module: nn.Module, note: Callable[[float], None], *, synchronize: bool) -> list[Any]:
    begun: list[float] = []

    def now() -> float:
        if synchronize:
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(*_: Any) -> None:
        begun.append(now())

    def end(*_: Any) -> None:
        note(now() - begun.pop())

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
