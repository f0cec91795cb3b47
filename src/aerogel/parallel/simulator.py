"""Compute in one process what any number of devices would: the oracle of the distributed run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from aerogel.parallel.layout import Layout
from aerogel.parallel.rounds import Round
from aerogel.parallel.seating import Seating, seat_devices
from aerogel.parallel.trace import Source, TensorSpec
from aerogel.parallel.wiring import Wiring, make_unread

Forward = Callable[[int], Any]


class _Everything:
    """Run every unit, and keep what will travel."""

    def __init__(self, shared: frozenset[Source]) -> None:
        self.kept: dict[Source, Tensor] = {}
        self._shared = shared

    def owns(self, unit: str) -> bool:
        return True

    def keep(self, source: Source, spec: TensorSpec, tensor: Tensor) -> None:
        # On shapes alone the layout in memory is a guess; what comes now is how it will be.
        if source in self._shared:
            self.kept[source] = TensorSpec.of(tensor).copy(tensor)

    def fetch(self, source: Source, spec: TensorSpec) -> Tensor:
        raise NotImplementedError


class _Device:
    """Run one device's units on what the others gave in the round before."""

    def __init__(
        self,
        seating: Seating,
        number: int,
        before: Mapping[Source, Tensor],
        where: torch.device,
        poisoned: bool,
    ) -> None:
        self.kept: dict[Source, Tensor] = {}
        self._owned, self._read = seating.owned[number], seating.read[number]
        self._shared = seating.shared if number < seating.components else frozenset()
        self._before, self._where, self._poisoned = before, where, poisoned

    def owns(self, unit: str) -> bool:
        return unit in self._owned

    def keep(self, source: Source, spec: TensorSpec, tensor: Tensor) -> None:
        if source in self._shared:
            self.kept[source] = TensorSpec.of(self._before[source]).copy(tensor)

    def fetch(self, source: Source, spec: TensorSpec) -> Tensor:
        if source in self._read:
            # A clone: what one device does to it in place, no other may see.
            return self._before[source].clone()
        return make_unread(spec, self._where, poisoned=self._poisoned)


class Simulator:
    """Answer the calls of one denoiser as a group of devices would, one round at a time.

    ``poisoned`` puts NaN wherever the plan says that nothing is read, which proves it.
    """

    def __init__(self, wiring: Wiring, layout: Layout, stride: int, *, poisoned: bool = False) -> None:
        self.seating = seat_devices(layout, stride)
        self._wiring, self._flow = wiring, layout.flow
        self._before: dict[Source, Tensor] = {}
        self._poisoned = poisoned

    def run(self, planned: Round, forward: Forward) -> list[Any]:
        """Return the denoiser's output for each step that the round answers.

        ``forward(step)`` calls the denoiser on the newest input at the time of ``step``.
        """
        if planned.fresh:
            everything = _Everything(self.seating.shared)
            with self._wiring.taken(self._flow, everything):
                output = forward(planned.body)
            self._before = everything.kept
            return [output]
        return self._run_parallel(planned, forward)

    def _run_parallel(self, planned: Round, forward: Forward) -> list[Any]:
        after: dict[Source, Tensor] = {}
        answers: dict[int, Any] = {}
        components = self.seating.components
        times = [planned.body] * components + list(planned.tails)
        for number, time in enumerate(times):
            device = _Device(self.seating, number, self._before, self._wiring.where, self._poisoned)
            with self._wiring.taken(self._flow, device):
                output = forward(time)
            after.update(device.kept)
            if number == self.seating.tail or number >= components:
                answers[number] = output
        self._before = after
        last = answers[self.seating.tail]
        first = [answers[components + place] for place in range(len(planned.tails))]
        return [first[0], first[0]] if planned.repeated else [*first, last]
