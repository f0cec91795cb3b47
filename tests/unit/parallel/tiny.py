"""Hand-made denoisers whose data flow is known, and flows without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from aerogel.parallel.flow import Flow, Unit
from aerogel.parallel.trace import Call, Slot, Source, TensorSpec, trace_calls

WIDTH = 16
ROWS = 8
LINEAR = ROWS * WIDTH * WIDTH  # multiply-accumulates of one layer


class Net(nn.Module):
    """A function as a denoiser, with modules of its own."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def linear() -> nn.Linear:
    """Return a layer without a name for its weights: only shapes count."""
    return nn.Linear(WIDTH, WIDTH, bias=False)


def block() -> Net:
    """Return two layers with a residual: what is inside reads more than the layer before."""
    return Net(lambda self, x: x + self.second(self.first(x).relu()), first=linear(), second=linear())


def stage(blocks: int) -> nn.Sequential:
    """Return blocks in a chain."""
    return nn.Sequential(*(block() for _ in range(blocks)))


def unet(*blocks: int) -> Net:
    """Return stages of so many blocks, a skip from the first to the last, a time embedding and a head."""

    def forward(self: Any, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        embedded = self.time(time)
        first = hidden = self.s0(x + embedded)
        for number in range(1, len(blocks) - 1):
            hidden = self.get_submodule(f"s{number}")(hidden + embedded)
        last = self.get_submodule(f"s{len(blocks) - 1}")(hidden + first)
        return self.head(last)  # type: ignore[no-any-return]

    stages = {f"s{number}": stage(count) for number, count in enumerate(blocks)}
    return Net(forward, time=nn.Linear(1, WIDTH), **stages, head=nn.LayerNorm(WIDTH))


def rows(count: int = ROWS) -> torch.Tensor:
    """Return an input that fits all of the above."""
    return torch.ones(count, WIDTH)


def trace(net: nn.Module, *args: Any, **kwargs: Any) -> Call:
    """Return the calls of ``net`` on ``args``, by default :func:`rows`."""
    return trace_calls(net, args or (rows(),), kwargs)


def trace_unet(*blocks: int) -> Call:
    """Return the calls of :func:`unet`."""
    return trace(unet(*blocks), rows(), torch.ones(1, 1))


def by_name(root: Call) -> dict[str, Call]:
    """Return all calls by name."""
    return {call.name: call for call in root.walk()}


def flow_of(reads: Sequence[set[Source]], sizes: Sequence[Sequence[int]] | None = None) -> Flow:
    """Return a flow of units "a", "b", … that gives tensors of so many bytes."""
    sizes = sizes or [[1]] * len(reads)
    units = tuple(
        Unit(chr(97 + number), 1, tuple(TensorSpec((size,), (1,), torch.uint8) for size in each), Slot(0))
        for number, each in enumerate(sizes)
    )
    return Flow(units, tuple(map(frozenset, reads)), frozenset({(units[-1].name, 0)}), len(units))
