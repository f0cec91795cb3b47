"""Let each device run its own units of a denoiser and take the others' outputs from where they are."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aerogel.parallel.flow import Flow, Unit
from aerogel.parallel.trace import Source, TensorSpec, distinct_tensors, fill_slots


class Seat(Protocol):
    """Say what one device does during one forward pass."""

    def owns(self, unit: str) -> bool:
        """Tell whether the device runs ``unit``."""
        ...

    def keep(self, source: Source, spec: TensorSpec, tensor: Tensor) -> None:
        """Take an output of a unit that the device has just run."""
        ...

    def fetch(self, source: Source, spec: TensorSpec) -> Tensor:
        """Return an output of a unit that the device does not run, or anything of its shape if unread."""
        ...


class Wiring:
    """Stand in front of the units of one denoiser, and step aside without a trace.

    While a :class:`Seat` is taken, units that it owns run as ever and the others are not run: what they
    return is fetched. Glue runs on every device. Outside of :meth:`taken`, and after :meth:`remove`, the
    denoiser is what it was. Several flows, of inputs of other shapes, may share one wiring.
    """

    def __init__(self, denoiser: nn.Module, where: torch.device | None = None) -> None:
        self._denoiser = denoiser
        self._where = where
        self._seat: Seat | None = None
        self._units: dict[str, Unit] = {}
        self._before: dict[str, tuple[nn.Module, Any]] = {}

    @property
    def where(self) -> torch.device:
        """Return the device that the denoiser runs on here."""
        return self._where or next(self._denoiser.parameters()).device

    def remove(self) -> None:
        """Give every unit its own ``forward`` back."""
        for module, before in self._before.values():
            if before is None:
                del module.forward
            else:
                module.forward = before
        self._before = {}

    @contextmanager
    def taken(self, flow: Flow, seat: Seat) -> Iterator[None]:
        """Run forward passes on the units of ``flow`` as ``seat`` says for the time of the context."""
        for name in flow.names:
            if name not in self._before:
                module = self._denoiser.get_submodule(name)
                self._before[name] = (module, vars(module).get("forward"))
                # An attribute of the instance: hooks, adapters and subclasses go on as before.
                module.forward = self._stand_in(name, module.forward)
        self._seat, self._units = seat, {unit.name: unit for unit in flow.units}
        try:
            yield
        finally:
            self._seat, self._units = None, {}

    def _stand_in(self, name: str, forward: Any) -> Any:
        def run_or_fetch(*args: Any, **kwargs: Any) -> Any:
            seat, unit = self._seat, self._units.get(name)
            if seat is None or unit is None:
                return forward(*args, **kwargs)
            sources = [(name, number) for number in range(len(unit.outputs))]
            if not seat.owns(name):
                return fill_slots(unit.shape, list(map(seat.fetch, sources, unit.outputs)))
            output = forward(*args, **kwargs)
            for source, spec, tensor in zip(sources, unit.outputs, distinct_tensors(output), strict=True):
                seat.keep(source, spec, tensor)
            return output

        return functools.update_wrapper(run_or_fetch, forward)


def make_unread(spec: TensorSpec, device: torch.device, *, poisoned: bool) -> Tensor:
    """Return a tensor for where nothing here reads: zeros, or (``poisoned``) what would spoil any result."""
    filling = torch.nan if poisoned and spec.dtype.is_floating_point else 0
    count = torch.Size(spec.shape).numel()
    return spec.view(torch.full((count,), filling, dtype=spec.dtype, device=device))
