"""The devices that share a pipeline's work: simulated ones, the ranks of a launched script, or workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from aerogel.parallel.calls import Calls
from aerogel.parallel.clock import Watch
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.cores import kept_to
from aerogel.parallel.layout import Layout
from aerogel.parallel.line import Speaker
from aerogel.parallel.lockstep import Lockstep
from aerogel.parallel.ranks import Rank
from aerogel.parallel.rounds import Round
from aerogel.parallel.session import Runner
from aerogel.parallel.simulator import Simulator
from aerogel.parallel.wiring import Wiring
from aerogel.parallel.workers import Workers


class Company(Protocol):
    """Be the devices that share a pipeline's work."""

    watch: Watch | None

    def lay_out(self, name: str, denoiser: nn.Module, make: Callable[[], Layout]) -> Layout:
        """Return the layout that ``make`` gives, on all of them."""
        ...

    def make_runner(self, name: str, denoiser: nn.Module, wiring: Wiring, layout: Layout) -> Runner:
        """Return what computes the rounds of one lane."""
        ...

    def forget(self, name: str) -> None:
        """Forget a denoiser that has changed."""
        ...

    def resident_bytes(self, name: str) -> tuple[int, ...]:
        """Return what the weights of each worker weigh."""
        ...


class Alone:
    """Simulate all devices in this process."""

    watch: Watch | None = None

    def __init__(self, config: ParallelConfig) -> None:
        self._stride = config.stride

    def lay_out(self, name: str, denoiser: nn.Module, make: Callable[[], Layout]) -> Layout:
        """Return the layout that ``make`` gives, on all of them."""
        return make()

    def make_runner(self, name: str, denoiser: nn.Module, wiring: Wiring, layout: Layout) -> Runner:
        """Return what computes the rounds of one lane."""
        return Simulator(wiring, layout, self._stride)

    def forget(self, name: str) -> None:
        """Forget a denoiser that has changed."""

    def resident_bytes(self, name: str) -> tuple[int, ...]:
        """Return what the weights of each worker weigh."""
        return ()


class Ranks:
    """Be one of the processes of a distributed run, each with the whole pipeline."""

    def __init__(self, pipe: Any, config: ParallelConfig, where: torch.device) -> None:
        def interrupt() -> None:
            if hasattr(pipe, "_interrupt"):
                pipe._interrupt = True

        self._lockstep = Lockstep(where, interrupt)
        self.watch: Watch | None = self._lockstep
        self._stride = config.stride
        self._ranks: list[Rank] = []

    def lay_out(self, name: str, denoiser: nn.Module, make: Callable[[], Layout]) -> Layout:
        """Return the layout that ``make`` gives, on all of them."""
        return self._lockstep.lay_out(make)

    def make_runner(self, name: str, denoiser: nn.Module, wiring: Wiring, layout: Layout) -> Runner:
        """Return what computes the rounds of one lane."""
        rank = Rank(wiring, layout, self._stride)
        self._ranks.append(rank)
        return self._lockstep.keep(f"{name}/{len(self._ranks)}", rank)

    def forget(self, name: str) -> None:
        """Forget a denoiser that has changed."""

    def resident_bytes(self, name: str) -> tuple[int, ...]:
        """Return what the weights of each worker weigh."""
        return ()

    def finish(self) -> None:
        """Let what is under way arrive, and part."""
        for rank in self._ranks:
            rank.finish()
        self._lockstep.end()


class Team:
    """Lead worker processes."""

    watch: Watch | None = None

    def __init__(self, workers: Workers, config: ParallelConfig, where: torch.device) -> None:
        self._workers, self._stride, self._where = workers, config.stride, where
        self._known: set[str] = set()
        self._ranks: list[Rank] = []

    def lay_out(self, name: str, denoiser: nn.Module, make: Callable[[], Layout]) -> Layout:
        """Return the layout that ``make`` gives, on all of them."""
        layout = make()
        if name not in self._known:
            self._workers.guard(lambda: self._workers.give_model(name, denoiser))
            self._known.add(name)
        return layout

    def make_runner(self, name: str, denoiser: nn.Module, wiring: Wiring, layout: Layout) -> Runner:
        """Return what computes the rounds of one lane."""
        key = f"{name}/{len(self._ranks)}"

        def open_lane() -> Rank:
            self._workers.open_lane(key, name, denoiser, layout, self._stride)
            rank = Rank(wiring, layout, self._stride, led=True)
            self._workers.await_lane(name)
            return rank

        rank = self._workers.guard(open_lane)
        self._ranks.append(rank)
        return _Guarded(self._workers, Speaker(self._workers, key, rank, self._where))

    def forget(self, name: str) -> None:
        """Forget a denoiser that has changed."""
        self._known.discard(name)

    def resident_bytes(self, name: str) -> tuple[int, ...]:
        """Return what the weights of each worker weigh."""
        return tuple(self._workers.resident_bytes.get(name, ()))

    def finish(self) -> None:
        """Let what is under way arrive, and part."""

        def end() -> None:
            for rank in self._ranks:
                rank.finish()
            self._workers.finish()

        if self._workers.running:
            self._workers.guard(end)


class _Guarded:
    """Run rounds with worker processes that may fail."""

    def __init__(self, workers: Workers, speaker: Speaker) -> None:
        self.runner = speaker.runner
        self._workers, self._speaker = workers, speaker

    def run(self, planned: Round, calls: Calls) -> list[Any]:
        with kept_to(self._workers.own_core):
            found: list[Any] = self._workers.guard(lambda: self._speaker.run(planned, calls))
        return found
