"""Runs of tiny denoisers on ranks, and everything in which they may differ from what they have to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.exchange import message_bytes
from aerogel.parallel.layout import Layout, lay_out
from aerogel.parallel.ranks import Rank
from aerogel.parallel.rounds import Round, plan_rounds
from aerogel.parallel.seating import plan_messages, seat_devices
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.trace import Call, trace_calls
from aerogel.parallel.wiring import Wiring
from tests.parallel.denoisers import CASES
from tests.parallel.tiny import Denoiser

STEPS = 8  # at a stride of 2 an odd number of them is left, so that the last round answers one step
_BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Setting:
    """Name one run."""

    case: str
    components: int
    stride: int
    warmup: int

    @property
    def devices(self) -> int:
        """Return how many ranks it takes."""
        return self.components + self.stride - 1

    def rounds(self) -> tuple[Round, ...]:
        """Return its rounds."""
        return plan_rounds(STEPS, warmup=self.warmup, stride=self.stride)

    def __str__(self) -> str:
        return f"{self.case} N={self.components} S={self.stride} w={self.warmup}"


@dataclass(frozen=True)
class Trail:
    """Hold what one rank had: its latents after every step [STEPS, ...], as an array, and the bytes it sent.

    ``sent_bytes`` are those that were given to torch.distributed, ``counted_bytes`` what the rank says.
    """

    latents: Any
    sent_bytes: int
    counted_bytes: int


@cache
def build(case: str) -> Denoiser:
    """Return the denoiser, the same in every process."""
    return _BY_NAME[case].build()


@cache
def _trace(case: str) -> Call:
    denoiser = build(case)
    return trace_calls(denoiser.model, *denoiser.inputs(denoiser.noise, 0))


@cache
def lay_out_case(case: str, components: int) -> Layout:
    """Return who owns what."""
    return lay_out(_trace(case), components)


@cache
def sample_in_turn(case: str) -> Tensor:
    """Return the latents after every step as everybody computes them, one call after the other."""
    denoiser, found = build(case), []
    sample = denoiser.noise
    with torch.no_grad():
        for step in range(STEPS):
            sample = _advance(sample, denoiser.predict(sample, step))
            found.append(sample)
    return torch.stack(found)


def simulate(setting: Setting, layout: Layout) -> Tensor:
    """Return the latents after every step as the simulator has them."""
    denoiser = build(setting.case)
    with _wired(denoiser) as wiring:
        return _sample_with(Simulator(wiring, layout, setting.stride), denoiser, setting)


def run_on_rank(work: Sequence[tuple[Setting, Layout]]) -> list[Trail]:
    """Return what this rank has in each of several runs."""
    return [_follow(setting, layout) for setting, layout in work]


def find_faults(setting: Setting, layout: Layout, trails: Sequence[Trail]) -> list[str]:
    """Return in what the ranks' trails are not what they have to be; latents are compared bit for bit."""
    exact, expected = sample_in_turn(setting.case), simulate(setting, layout)
    faults = []
    if not expected.isfinite().all():
        faults.append("the simulator's latents are not finite")
    if setting.warmup >= STEPS:
        if _bits(expected) != _bits(exact):
            faults.append("the simulator differs from sequential sampling")
        if any(_bits(trail.latents) != _bits(exact) for trail in trails):
            faults.append("ranks differ from sequential sampling")
    elif torch.equal(expected[-1], exact[-1]):
        faults.append("asynchronous rounds change nothing, so this run shows nothing")
    for rank, trail in enumerate(trails):
        apart = [step for step in range(STEPS) if _bits(trail.latents[step]) != _bits(expected[step])]
        if apart:
            faults.append(f"rank {rank} differs from the simulator from step {apart[0]} on")
        if _bits(trail.latents) != _bits(trails[0].latents):
            faults.append(f"rank {rank} and rank 0 have different latents")
    planned = plan_bytes(setting, layout)
    for name in ("sent_bytes", "counted_bytes"):
        found = [getattr(trail, name) for trail in trails]
        if found != planned:
            faults.append(f"{name} of the ranks are {found}, planned are {planned}")
    return faults


def plan_bytes(setting: Setting, layout: Layout) -> list[int]:
    """Return what each rank has to send in a whole run: planned tensors in every round, and its answers."""
    seating, rounds = seat_devices(layout, setting.stride), setting.rounds()
    answer = build(setting.case).noise.nbytes * (setting.devices - 1)
    sent = [0] * setting.devices
    for message in plan_messages(layout, seating):
        sent[message.sender] += len(rounds) * message_bytes(message)
    for planned in rounds:
        for speaker in (seating.tail, *range(seating.components, seating.components + len(planned.tails))):
            sent[speaker] += answer
    return sent


def _follow(setting: Setting, layout: Layout) -> Trail:
    denoiser = build(setting.case)
    with _wired(denoiser) as wiring, _metering() as given:
        rank = Rank(wiring, layout, setting.stride)
        latents = _sample_with(rank, denoiser, setting)
        rank.finish()
    dist.barrier()
    return Trail(latents.numpy(), sum(given), rank.exchange.sent_bytes)


@contextmanager
def _metering() -> Iterator[list[int]]:
    """Note the bytes of everything that this process gives to torch.distributed for others."""
    given: list[int] = []
    isend, broadcast = dist.isend, dist.broadcast

    def meter_isend(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(tensor.nbytes)
        return isend(tensor, *args, **kwargs)

    def meter_broadcast(tensor: Tensor, src: int, *args: Any, **kwargs: Any) -> Any:
        if src == dist.get_rank():
            given.append(tensor.nbytes * (dist.get_world_size() - 1))
        return broadcast(tensor, src, *args, **kwargs)

    with patch.object(dist, "isend", meter_isend), patch.object(dist, "broadcast", meter_broadcast):
        yield given


@contextmanager
def _wired(denoiser: Denoiser) -> Iterator[Wiring]:
    wiring = Wiring(denoiser.model)
    try:
        yield wiring
    finally:
        wiring.remove()


def _sample_with(runner: Any, denoiser: Denoiser, setting: Setting) -> Tensor:
    sample, found = denoiser.noise, []
    with torch.no_grad():
        for planned in setting.rounds():
            for noise in runner.run(planned, partial(denoiser.predict, sample)):
                sample = _advance(sample, noise)
                found.append(sample)
    return torch.stack(found)


def _advance(sample: Tensor, noise: Tensor) -> Tensor:
    return sample - 0.1 * noise


def _bits(values: Any) -> bytes:
    array = values.numpy() if isinstance(values, Tensor) else values
    return bytes(array.tobytes())
