"""Plan which denoising steps are computed when: warm-up, then rounds of one stride each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aerogel.errors import ConfigError, compose

Stride2 = Literal["paper", "published"]


@dataclass(frozen=True)
class Round:
    """Describe one round: the denoiser steps it answers, and the steps whose times its parts are given.

    ``fresh`` rounds belong to the warm-up: every part waits for the outputs of this very round. In the
    others all parts run at once on the outputs of the round before. ``body`` is the step whose time the
    components are given; ``tails`` those of the copies of the last component, one for each answered step
    but the last, which the last component answers itself. A step's time is that of its place in the
    scheduler's list.
    """

    steps: tuple[int, ...]
    fresh: bool
    body: int
    tails: tuple[int, ...] = ()
    repeated: bool = False

    def __str__(self) -> str:
        """Return the round in one line."""
        steps = ", ".join(str(step) for step in self.steps)
        if self.fresh:
            return f"step {steps}: warm-up"
        times = ", ".join(str(tail) for tail in (*self.tails, self.body))
        return f"step{'s' if len(self.steps) > 1 else ''} {steps}: in parallel, at the times of {times}"


def plan_rounds(
    steps: int, *, warmup: int, stride: int, time_shift: bool = False, stride2: Stride2 = "paper"
) -> tuple[Round, ...]:
    """Return the rounds of a run of ``steps`` denoiser calls, of which the first ``warmup`` are exact.

    Implements section 3.2 of arXiv 2406.06911. With a ``stride`` of 2 one round answers two steps: the
    components run at the time of the second, a copy of the last one on a further device at that of the
    first, both on the outputs of the round before. ``time_shift`` gives every parallel step the time of the
    step before it. ``stride2`` "published" repeats the first answer for the second step, as the published
    code does through an alias, for comparison only.

    Raises:
        ConfigError: a number out of range.
    """
    _require_range(steps, warmup, stride)
    return tuple(_each_round(steps, min(warmup, steps), stride, int(time_shift), stride2 == "published"))


def _each_round(steps: int, warmup: int, stride: int, shift: int, published: bool) -> Iterator[Round]:
    for step in range(warmup):
        yield Round((step,), fresh=True, body=step)
    for first in range(warmup, steps, stride):
        answered = tuple(range(first, min(first + stride, steps)))
        *tails, body = (step - shift for step in answered)
        yield Round(
            answered, fresh=False, body=body, tails=tuple(tails), repeated=published and len(answered) > 1
        )


def _require_range(steps: int, warmup: int, stride: int) -> None:
    if steps < 1:
        raise ConfigError(compose("1 denoising step or more", f"{steps}", "raise num_inference_steps"))
    if warmup < 1:
        raise ConfigError(
            compose(
                "a warm-up of 1 step or more, for the first parallel round needs the outputs of one",
                f"{warmup}",
                "pass warmup=1",
            )
        )
    if stride not in (1, 2):
        raise ConfigError(compose("a stride of 1 or 2", f"{stride}", "pass stride=1"))


def predict_speedup(
    steps: int, *, warmup: int, stride: int, slowest_share: float, overhead_share: float = 0.0
) -> float:
    """Return how many times sooner the denoising ends than on one device.

    ``slowest_share`` is the largest share of one call's time that a device has to compute,
    ``overhead_share`` what a round adds for traffic, glue and waiting, both over the time of one whole call.
    Implements the cost model behind equations 6 to 8 of arXiv 2406.06911.
    """
    warmup = min(warmup, steps)
    rounds = -(-(steps - warmup) // stride)
    return steps / (warmup + rounds * (slowest_share + overhead_share))
