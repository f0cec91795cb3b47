"""The settings of a parallel run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aerogel.core.config import config
from aerogel.parallel.rounds import Stride2

Balance = Literal["macs", "measured"]


@config("parallel", version=1)
@dataclass(frozen=True)
class ParallelConfig:
    """Set how a denoiser is divided and its steps become rounds.

    ``components`` is the number of parts, each on a device of its own; with a ``stride`` of 2 one more device
    runs a copy of the last. Without a number there is one part for each process of a distributed run or each
    CUDA device, and two on the CPU. The first ``warmup`` steps of each image are exact. ``time_shift`` and
    ``stride2`` are those of :func:`aerogel.parallel.plan_rounds`. ``fold`` asks for the first and the last
    segment of the denoiser on one device, or forbids that the last shares any; without a word the best is
    taken, with the last on any device. ``balance``
    "measured" times the parts on this machine before it divides them: better balanced, but another day's plan
    may differ, and with it the pictures. ``speeds`` says how fast the devices are in relation to each other;
    a faster one gets more. ``threads`` is the number of CPU threads of each process started
    here; without a number they share those of this one. After ``timeout_s`` seconds of waiting for another
    process a run ends with an error.
    """

    components: int | None = None
    stride: int = 1
    warmup: int = 1
    time_shift: bool = False
    stride2: Stride2 = "paper"
    fold: bool | None = None
    balance: Balance = "macs"
    speeds: tuple[float, ...] | None = None
    threads: int | None = None
    timeout_s: float = 600.0

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = [
            f"{name}: expected a number above 0; got {value}"
            for name, value in (
                ("components", self.components),
                ("warmup", self.warmup),
                ("threads", self.threads),
                ("timeout_s", self.timeout_s),
            )
            if value is not None and not value > 0
        ]
        if self.speeds is not None and (len(self.speeds) != self.components or min(self.speeds) <= 0):
            mistakes.append(
                f"speeds: expected a number above 0 for each of the components; got {list(self.speeds)}"
            )
        if self.stride not in (1, 2):
            mistakes.append(f"stride: expected 1 or 2; got {self.stride}")
        return mistakes
