"""Move the planned tensors between processes: one buffer for what travels together, two of each in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.peers import reaching
from aerogel.parallel.seating import Message
from aerogel.parallel.trace import Source, TensorSpec

_ALIGNMENT = 64
_HEADER = 8
# A message of its own costs both sides some tens of microseconds, about what these bytes take.
_BUNDLE_BYTES = 2**18

Groups = Mapping[tuple[int, int], Any]


def message_bytes(message: Message) -> int:
    """Return what a message weighs: the tensor, the order of its dimensions, and what aligns the next one."""
    return -(-(message.spec.size_bytes + _HEADER) // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Bundle:
    """Hold messages that travel as one, once the last of them is made."""

    messages: tuple[Message, ...]

    @property
    def sender(self) -> int:
        """Return the device that sends it."""
        return self.messages[0].sender

    @property
    def receiver(self) -> int:
        """Return the device that it goes to."""
        return self.messages[0].receiver

    @property
    def size_bytes(self) -> int:
        """Return what it weighs."""
        return sum(map(message_bytes, self.messages))


def join_messages(messages: Sequence[Message]) -> tuple[Bundle, ...]:
    """Return the bundles in which ``messages`` travel, in the order in which they are opened.

    Messages between the same devices, made in the same stretch of work, are joined until they weigh enough to
    travel alone: small ones would cost more for being many than they gain for being early.
    """
    bundles: list[list[Message]] = []
    latest: dict[tuple[int, int, int], list[Message]] = {}
    for message in messages:
        key = (message.sender, message.receiver, message.segment)
        bundle = latest.get(key)
        if bundle is None or sum(map(message_bytes, bundle)) >= _BUNDLE_BYTES:
            bundle = latest[key] = []
            bundles.append(bundle)
        bundle.append(message)
    return tuple(Bundle(tuple(each)) for each in bundles)


def make_groups(messages: Sequence[Message]) -> Groups:
    """Return a process group for every direction in which something travels; all ranks must call this.

    NCCL runs what two ranks exchange in the order of issue, so that a receive that was posted early would
    hold up the send that the other side waits for. Other back ends need no groups.
    """
    if "nccl" not in dist.get_backend_config():
        return {}
    pairs = sorted({(each.sender, each.receiver) for each in messages})
    return {pair: dist.new_group(list(pair)) for pair in pairs}


class _Slot:
    """Be one bundle's place in the buffers of two rounds."""

    def __init__(self, tag: int, bundle: Bundle, where: torch.device) -> None:
        self.tag, self.bundle = tag, bundle
        self.buffers = [torch.zeros(bundle.size_bytes, dtype=torch.uint8, device=where) for _ in range(2)]
        self.missing: set[Source] = set()
        sizes = [message_bytes(each) for each in bundle.messages]
        self._parts = [
            {each.source: part for each, part in zip(bundle.messages, buffer.split(sizes), strict=True)}
            for buffer in self.buffers
        ]

    def part(self, turn: int, message: Message) -> tuple[Tensor, Tensor]:
        """Return the bytes of the tensor of ``message``, and those of its header."""
        size = message.spec.size_bytes
        whole = self._parts[turn][message.source]
        return whole[:size], whole[size : size + _HEADER]


class Exchange:
    """Send this device's outputs as soon as they are there; receive the others' before they are asked for.

    What was received in one round stays as it is until the end of the next, in the other buffer. Each message
    ends with the order of the tensor's dimensions in memory, which is read in the warm-up and kept: kernels
    may round differently on the same values laid out otherwise.
    """

    def __init__(
        self, messages: Sequence[Message], me: int, where: torch.device, groups: Groups | None = None
    ) -> None:
        self._groups = groups or {}
        bundles = list(enumerate(join_messages(messages)))
        self._outgoing = [_Slot(tag, each, where) for tag, each in bundles if each.sender == me]
        self._incoming = [_Slot(tag, each, where) for tag, each in bundles if each.receiver == me]
        self._expected = {
            message.source: (slot, message) for slot in self._incoming for message in slot.bundle.messages
        }
        self._by_source: dict[Source, list[tuple[_Slot, Message]]] = {}
        for slot in self._outgoing:
            for message in slot.bundle.messages:
                self._by_source.setdefault(message.source, []).append((slot, message))
        self._sending: list[list[Any]] = [[], []]
        self._arriving: list[dict[int, Any]] = [{}, {}]
        self._specs: dict[Source, TensorSpec] = {}
        self._turn = 0
        self.sent_bytes = 0

    def begin(self) -> None:
        """Open a round: ask for all that the others will send in it."""
        self._turn = 1 - self._turn
        for slot in self._outgoing:
            slot.missing = {each.source for each in slot.bundle.messages}
        with reaching():
            for work in self._sending[self._turn]:
                work.wait()
            self._sending[self._turn] = []
            self._arriving[self._turn] = {
                slot.tag: dist.irecv(
                    slot.buffers[self._turn], slot.bundle.sender, self._group(slot.bundle), slot.tag
                )
                for slot in self._incoming
            }

    def send(self, source: Source, tensor: Tensor, *, fresh: bool) -> None:
        """Send an output of this round to all that read it, with the last of its bundle."""
        for slot, message in self._by_source.get(source, ()):
            if fresh:
                self._specs[source] = TensorSpec.of(tensor)
                order = torch.tensor(
                    [*self._specs[source].order, *[0] * _HEADER][:_HEADER], dtype=torch.uint8
                )
                for turn in range(2):
                    slot.part(turn, message)[1].copy_(order)
            body, _ = slot.part(self._turn, message)
            self._specs[source].view(body.view(message.spec.dtype)).copy_(tensor.detach())
            slot.missing.discard(source)
            if not slot.missing:
                self._post(slot)

    def _post(self, slot: _Slot) -> None:
        buffer = slot.buffers[self._turn]
        with reaching():
            work = dist.isend(buffer, slot.bundle.receiver, self._group(slot.bundle), slot.tag)
        self._sending[self._turn].append(work)
        self.sent_bytes += buffer.nbytes

    def receive(self, source: Source, *, fresh: bool) -> Tensor:
        """Return an output of this round (``fresh``) or of the round before; wait for it if need be."""
        turn = self._turn if fresh else 1 - self._turn
        slot, message = self._expected[source]
        work = self._arriving[turn].pop(slot.tag, None)
        if work is not None:
            with reaching():
                work.wait()
        body, header = slot.part(turn, message)
        if source not in self._specs:
            self._specs[source] = message.spec.arrange(header.tolist()[: len(message.spec.shape)])
        received = self._specs[source].view(body.view(message.spec.dtype))
        # What a fresh round has read is read once more, a round later: glue may change it in place meanwhile.
        return received.clone() if fresh else received

    def finish(self) -> None:
        """Wait until everything that was sent or asked for has passed."""
        for turn in (1 - self._turn, self._turn):
            for work in (*self._sending[turn], *self._arriving[turn].values()):
                with reaching():
                    work.wait()
            self._sending[turn], self._arriving[turn] = [], {}

    def _group(self, bundle: Bundle) -> Any:
        return self._groups.get((bundle.sender, bundle.receiver))
