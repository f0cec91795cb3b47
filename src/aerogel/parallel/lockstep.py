"""Keep ranks that run the same script in step: the first one's inputs, random numbers and samples count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.errors import DeviceError, RankError, compose
from aerogel.parallel.calls import Calls, Cancelled
from aerogel.parallel.layout import Layout
from aerogel.parallel.line import GroupLine, Listener, Speaker
from aerogel.parallel.messages import Turn
from aerogel.parallel.outbox import Outbox
from aerogel.parallel.peers import reaching
from aerogel.parallel.rounds import Round
from aerogel.parallel.session import Runner
from aerogel.parallel.trace import distinct_tensors


@dataclass(frozen=True)
class _Begin:
    """Begin a new image with these states of the random number generators."""

    cpu: Tensor
    cuda: Tensor | None


@dataclass(frozen=True)
class _End:
    """Leave the block."""


@dataclass(frozen=True)
class _Refused:
    """Report why a denoiser is not divided."""

    text: str


class Lockstep:
    """Let rank 0 speak before everything that all ranks do together, and the others check that they do it.

    A rank that finds rank 0 at another image, or gone, while it waits for a round knows that the image was
    cancelled there: ``interrupt`` is called, and until the next image no round is waited for: it raises
    :class:`Cancelled`.
    """

    def __init__(self, where: torch.device, interrupt: Callable[[], None]) -> None:
        self._where, self._interrupt = where, interrupt
        self._leads = dist.get_rank() == 0
        # What is said stays off the device, whatever back end moves the tensors.
        self._line = GroupLine(dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None)
        self._outbox = Outbox()
        self._held: Any = None
        self._cancelled = False

    def begin(self) -> None:
        """Begin an image: from here all ranks draw the same random numbers."""
        cuda = self._where.type == "cuda"
        if self._leads:
            state = torch.cuda.get_rng_state(self._where) if cuda else None
            self._line.tell(_Begin(torch.get_rng_state(), state))
            return
        heard = self._expect(_Begin)
        self._cancelled = False
        torch.set_rng_state(heard.cpu)
        if cuda:
            torch.cuda.set_rng_state(heard.cuda, self._where)

    def agree(self, values: Any) -> None:
        """Copy rank 0's samples over those in ``values``."""
        if self._cancelled:
            return
        self._outbox.wait()
        for tensor in distinct_tensors(values):
            shared = tensor.detach().to(self._where, copy=True).contiguous()
            if self._leads:
                self._outbox.send(shared)
                continue
            with reaching():
                dist.broadcast(shared, 0)
            tensor.copy_(shared)

    def lay_out(self, make: Callable[[], Layout]) -> Layout:
        """Return the layout that ``make`` gives on rank 0."""
        if not self._leads:
            heard = self._hear_in_image()
            if isinstance(heard, _Refused):
                raise DeviceError(heard.text)
            if not isinstance(heard, Layout):
                raise self._out_of_step("layout of a denoiser for new shapes", heard)
            return heard
        try:
            layout = make()
        except Exception as error:
            self._line.tell(_Refused(str(error)))
            raise
        self._line.tell(layout)
        return layout

    def keep(self, lane: str, runner: Runner) -> Runner:
        """Return ``runner`` with rank 0's word before every round."""
        if self._leads:
            return Speaker(self._line, lane, runner, self._where)
        return _Companion(self, lane, Listener(runner, self._where))

    def take_turn(self, lane: str, planned: Round) -> Turn:
        """Return what rank 0 says of the round that is next here."""
        heard = self._hear_in_image()
        if not isinstance(heard, Turn) or (heard.lane, heard.planned) != (lane, planned):
            raise self._out_of_step(f"round of {planned} in lane {lane}", heard)
        return heard

    def end(self) -> None:
        """Leave the block together."""
        if self._leads:
            self._line.tell(_End())
            self._line.finish()
            self._outbox.wait()
        else:
            self._expect(_End)

    def _expect(self, kind: type) -> Any:
        heard = self._hear()
        if not isinstance(heard, kind):
            raise self._out_of_step(_describe(kind), heard)
        return heard

    def _hear_in_image(self) -> Any:
        if not self._cancelled:
            heard = self._hear()
            if not isinstance(heard, (_Begin, _End)):
                return heard
            self._held, self._cancelled = heard, True
            self._interrupt()
        raise Cancelled

    def _hear(self) -> Any:
        heard, self._held = self._held, None
        return self._line.hear() if heard is None else heard

    def _out_of_step(self, here: str, heard: Any) -> RankError:
        in_round = isinstance(heard, Turn)
        there = f"round of {heard.planned} in lane {heard.lane}" if in_round else _describe(type(heard))
        return RankError(
            compose(
                f"rank 0 to do what rank {dist.get_rank()} does next ({here})",
                there,
                "make the same calls of the pipeline on every rank; cancel on rank 0 only",
            )
        )


class _Companion:
    """Run one lane's rounds beside rank 0."""

    def __init__(self, lockstep: Lockstep, lane: str, listener: Listener) -> None:
        self.runner = listener.runner
        self._lockstep, self._lane, self._listener = lockstep, lane, listener

    def run(self, planned: Round, calls: Calls) -> list[Any]:
        return self._listener.run(self._lockstep.take_turn(self._lane, planned), calls.forward)


def _describe(kind: type) -> str:
    words = {
        _Begin: "the begin of an image",
        _End: "the end of the block",
        Layout: "layout of a denoiser for new shapes",
        _Refused: "refusal of a denoiser",
    }
    return words.get(kind, kind.__name__)
