"""Answer a denoiser's calls in rounds, for every image, guidance branch and input shape on its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from aerogel.parallel.calls import Arguments, Calls, Cancelled
from aerogel.parallel.clock import Clock
from aerogel.parallel.layout import Layout
from aerogel.parallel.residency import fingerprint
from aerogel.parallel.rounds import Round, Stride2, plan_rounds
from aerogel.parallel.times import TimeArgument
from aerogel.parallel.wiring import Wiring


class Runner(Protocol):
    """Compute rounds: a group of processes, or one that simulates it."""

    def run(self, planned: Round, forward: Calls) -> list[Any]:
        """Return the denoiser's output for each step that the round answers."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Hold how steps become rounds: see :func:`aerogel.parallel.rounds.plan_rounds`."""

    warmup: int = 1
    stride: int = 1
    time_shift: bool = False
    stride2: Stride2 = "paper"

    def rounds(self, steps: int) -> tuple[Round, ...]:
        """Return the rounds of a run of ``steps``."""
        return plan_rounds(
            steps,
            warmup=self.warmup,
            stride=self.stride,
            time_shift=self.time_shift,
            stride2=self.stride2,
        )


@dataclass(frozen=True)
class Timing:
    """Hold how long one round took, of how many steps, and whether it was of the warm-up."""

    fresh: bool
    steps: int
    seconds: float


@dataclass
class Lane:
    """Follow one guidance branch at one input shape through one image after the other.

    ``timings`` are those of all rounds; the last image's begin at ``begun``.
    """

    runner: Runner
    layout: Layout
    run: int = -1
    origin: int = 0
    following: int = -1
    rounds: dict[int, Round] = field(default_factory=dict)
    answers: dict[int, Any] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    begun: int = 0


class Session:
    """Stand in for one denoiser's ``forward``, until :meth:`close`.

    A lane is kept for every guidance branch (the denoiser's first, second, ... call in one step) and every
    shape and dtype of the inputs. It warms up again when a new image begins, when a step is missing or comes
    twice, and when the inputs change. ``lay_out(args, kwargs)`` divides the denoiser for the inputs of one
    call; ``make_runner(wiring, layout)`` gives a lane what computes its rounds. A denoiser whose parts or
    weights have changed since the image before is divided anew, after ``forget()``.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        clock: Clock,
        schedule: Schedule,
        lay_out: Callable[[tuple[Any, ...], dict[str, Any]], Layout],
        make_runner: Callable[[Wiring, Layout], Runner],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._denoiser, self._clock, self._schedule = denoiser, clock, schedule
        self._lay_out, self._make_runner, self._forget = lay_out, make_runner, forget
        self._wiring = Wiring(denoiser)
        self._layouts: dict[Hashable, Layout] = {}
        self._lanes: dict[Hashable, Lane] = {}
        self._moment = (-1, 0)
        self._branch = 0
        self._print = fingerprint(denoiser)
        self.untimed = False
        self._before = vars(denoiser).get("forward")
        self._forward = denoiser.forward
        self._time = TimeArgument(self._forward)
        self._stand_in = functools.update_wrapper(functools.partial(self._answer), self._forward)
        denoiser.forward = self._stand_in

    @property
    def layouts(self) -> list[Layout]:
        """Return the layouts made so far, one for each input shape."""
        return list(self._layouts.values())

    @property
    def runners(self) -> list[Runner]:
        """Return what computes the rounds of each lane."""
        return [lane.runner for lane in self._lanes.values()]

    @property
    def lanes(self) -> list[Lane]:
        """Return the lanes, in the order of their first calls."""
        return list(self._lanes.values())

    def reopen(self) -> None:
        """Stand in for the denoiser's ``forward`` again, after :meth:`close`."""
        self._denoiser.forward = self._stand_in

    def close(self) -> None:
        """Leave the denoiser and its parts as they were."""
        self._wiring.remove()
        if self._before is None:
            del self._denoiser.forward
        else:
            self._denoiser.forward = self._before

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        self._clock.refresh()
        moment = (self._clock.run, self._clock.step)
        if moment[0] != self._moment[0]:
            self._renew()
        self._branch = self._branch + 1 if moment == self._moment else 0
        self._moment = moment
        try:
            return self._answer_step(*moment, (args, kwargs))
        except Cancelled:
            # The pipeline needs something of the right shape to leave its loop with.
            return self._forward(*args, **kwargs)

    def _answer_step(self, run: int, step: int, arguments: Arguments) -> Any:
        lane = self._find_lane(arguments)
        if lane.run != run or lane.following != step:
            self._restart(lane, run, step)
        lane.following = step + 1
        if step not in lane.answers:
            lane.answers = self._compute(lane, step, arguments)
        return lane.answers.pop(step)

    def _renew(self) -> None:
        """Forget what was known of a denoiser that has changed since the image before."""
        found = fingerprint(self._denoiser)
        if found != self._print:
            self._wiring.remove()
            self._layouts, self._lanes, self._print = {}, {}, found
            self._forget()

    def _find_lane(self, arguments: Arguments) -> Lane:
        signature = _sign(arguments)
        key = (self._branch, signature)
        if key not in self._lanes:
            if signature not in self._layouts:
                # Divided as it is without us: what is copied for the trace must not answer for the original.
                self.close()
                try:
                    self._layouts[signature] = self._lay_out(*arguments)
                finally:
                    self._denoiser.forward = self._stand_in
            layout = self._layouts[signature]
            self._lanes[key] = Lane(self._make_runner(self._wiring, layout), layout)
        return self._lanes[key]

    def _restart(self, lane: Lane, run: int, step: int) -> None:
        """Begin at ``step`` with a warm-up."""
        if lane.run != run:
            lane.begun = len(lane.timings)
        lane.run, lane.origin, lane.answers = run, step, {}
        rounds = self._schedule.rounds(max(1, self._clock.steps - step))
        lane.rounds = {each.steps[0]: each for each in rounds}

    def _compute(self, lane: Lane, step: int, arguments: Arguments) -> dict[int, Any]:
        """Run the round that begins at ``step``; return its answers by step."""
        origin = lane.origin
        planned = lane.rounds.get(step - origin)
        if planned is None:
            # The scheduler asks for more steps than it announced.
            self._restart(lane, lane.run, step)
            origin, planned = step, lane.rounds[0]
        moments = {planned.body, *planned.tails}
        calls = Calls(self._forward, {each: self._at(arguments, step, origin + each) for each in moments})
        begin = time.perf_counter()
        outputs = lane.runner.run(planned, calls)
        if self._wiring.where.type == "cuda":
            torch.cuda.synchronize(self._wiring.where)
        lane.timings.append(Timing(planned.fresh, len(planned.steps), time.perf_counter() - begin))
        return dict(zip((origin + each for each in planned.steps), outputs, strict=True))

    def _at(self, arguments: Arguments, now: int, then: int) -> Arguments:
        """Return the arguments of a call at step ``now`` with the time of step ``then``."""
        if now == then:
            return arguments
        shifted = self._time.shift(*arguments, self._clock.time(now), self._clock.time(then))
        self.untimed |= shifted is None
        return arguments if shifted is None else shifted


def is_divided(denoiser: nn.Module) -> bool:
    """Tell whether a session stands in for the denoiser."""
    stand_in = getattr(vars(denoiser).get("forward"), "func", None)
    return isinstance(getattr(stand_in, "__self__", None), Session)


def _sign(arguments: Arguments) -> Hashable:
    """Return what tells the arguments of two calls apart, but for the values of tensors."""
    leaves, structure = tree_flatten(arguments)
    signs: list[Hashable] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            signs.append((tuple(leaf.shape), leaf.dtype, leaf.device.type))
        elif isinstance(leaf, (bool, str, type(None))):
            signs.append(leaf)
        else:
            # Numbers change from step to step (a time, a scale) and leave shapes as they are.
            signs.append(type(leaf).__name__)
    return (str(structure), tuple(signs))
