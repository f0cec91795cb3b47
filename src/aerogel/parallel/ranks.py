"""Run the rounds on a group of processes, one device each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.errors import DeviceError, compose
from aerogel.parallel.exchange import Exchange, make_groups
from aerogel.parallel.layout import Layout
from aerogel.parallel.outbox import Outbox
from aerogel.parallel.peers import reaching
from aerogel.parallel.rounds import Round
from aerogel.parallel.seating import Seating, plan_messages, seat_devices
from aerogel.parallel.simulator import Forward
from aerogel.parallel.trace import Source, TensorSpec, distinct_tensors, find_tensors, replace_tensors
from aerogel.parallel.wiring import Wiring, make_unread


class _RankSeat:
    """Run this rank's units; send what others read; take what it reads from the exchange."""

    def __init__(
        self,
        exchange: Exchange,
        seating: Seating,
        me: int,
        unread: Callable[[TensorSpec], Tensor],
        *,
        fresh: bool,
    ) -> None:
        self._exchange, self._unread, self._fresh = exchange, unread, fresh
        copy = me >= seating.components
        # In the warm-up a copy of the last component has nothing to add: it only listens.
        self._owned = frozenset() if copy and fresh else seating.owned[me]
        self._read = frozenset() if copy and fresh else seating.read[me]
        self._sends = not copy

    def owns(self, unit: str) -> bool:
        return unit in self._owned

    def keep(self, source: Source, spec: TensorSpec, tensor: Tensor) -> None:
        if self._sends:
            self._exchange.send(source, tensor, fresh=self._fresh)

    def fetch(self, source: Source, spec: TensorSpec) -> Tensor:
        if source in self._read:
            return self._exchange.receive(source, fresh=self._fresh)
        return self._unread(spec)


class Rank:
    """Answer the calls of one denoiser together with the other ranks, one round at a time.

    The rank's number in the default process group is its device's in the seating. A warm-up round passes
    through the devices one after the other, so that a rank only ever runs its own units. With ``led``, the
    others only work for rank 0: what it answers by itself they are not told.
    """

    def __init__(self, wiring: Wiring, layout: Layout, stride: int, *, led: bool = False) -> None:
        self.seating = seat_devices(layout, stride)
        self._me = dist.get_rank()
        messages = plan_messages(layout, self.seating)
        self.exchange = Exchange(messages, self._me, wiring.where, make_groups(messages))
        self._outbox, self._led = Outbox(), led
        self._wiring, self._flow = wiring, layout.flow
        # Made once: nobody reads what is in them.
        self._make_unread = functools.cache(
            functools.partial(make_unread, device=wiring.where, poisoned=False)
        )

    def finish(self) -> None:
        """Let what is under way arrive."""
        self._outbox.wait()
        self.exchange.finish()

    def run(self, planned: Round, forward: Forward) -> list[Any]:
        """Return the denoiser's output for each step that the round answers, the same on every rank told.

        ``forward(step)`` calls the denoiser on the newest input at the time of ``step``.

        Raises:
            DeviceError: tensors of the output are where they cannot be found.
            LostError: another rank has ended, or does not answer.
        """
        place = self._me - self.seating.components
        idle = place >= len(planned.tails)
        time = planned.body if place < 0 or idle else planned.tails[place]
        self.exchange.begin()
        seat = _RankSeat(self.exchange, self.seating, self._me, self._make_unread, fresh=planned.fresh)
        with self._wiring.taken(self._flow, seat):
            output = forward(time)
        _require_open(output)
        self._outbox.wait()
        speakers = [self.seating.components + number for number in range(len(planned.tails))]
        if planned.repeated:
            speakers *= 2
        else:
            speakers.append(self.seating.tail)
        return [self._share(output, speaker) for speaker in speakers]

    def _share(self, output: Any, speaker: int) -> Any:
        """Return the output that the rank ``speaker`` has, on every rank that is told."""
        if self._led and speaker == 0:
            return output
        shared = []
        for tensor in distinct_tensors(output):
            spec = TensorSpec.of(tensor)
            flat = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
            each = spec.view(flat)
            if speaker == self._me:
                each.copy_(tensor.detach())
                self._outbox.send(flat)
                self.exchange.sent_bytes += spec.size_bytes * (dist.get_world_size() - 1)
                # A clone: the pipeline may change it in place while it is under way.
                each = each.clone()
            else:
                with reaching():
                    dist.broadcast(flat, speaker)
            shared.append(each)
        return replace_tensors(output, shared)


def _require_open(output: Any) -> None:
    """Check that no tensor hides in an object whose parts are not known: it would be left as it is here."""
    seen = {id(each) for each in distinct_tensors(output)}
    if not seen or any(id(each) not in seen for each in find_tensors(output)):
        raise DeviceError(
            compose(
                "a denoiser that returns tensors: alone, in tuples, lists, dicts or outputs of diffusers",
                f"{type(output).__name__}",
                "return a tuple, or register the class with torch.utils._pytree",
            )
        )
