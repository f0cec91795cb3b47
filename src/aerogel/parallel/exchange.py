"""Move the planned tensors between processes: one buffer per peer, two of each in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.peers import reaching
from aerogel.parallel.seating import Message
from aerogel.parallel.trace import Source, TensorSpec

_ALIGNMENT = 64
_HEADER = 8

Groups = Mapping[tuple[int, int], Any]


def message_bytes(message: Message) -> int:
    """Return what a message weighs: the tensor and the order of its dimensions."""
    return message.spec.size_bytes + _HEADER


def make_groups(messages: Sequence[Message]) -> Groups:
    """Return a process group for every direction in which something travels; all ranks must call this.

    NCCL runs what two ranks exchange in the order of issue, so that a receive that was posted early would
    hold up the send that the other side waits for. Other back ends need no groups.
    """
    if "nccl" not in dist.get_backend_config():
        return {}
    pairs = sorted({(each.sender, each.receiver) for each in messages})
    return {pair: dist.new_group(list(pair)) for pair in pairs}


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
        self._outgoing = [(tag, each) for tag, each in enumerate(messages) if each.sender == me]
        self._incoming = [(tag, each) for tag, each in enumerate(messages) if each.receiver == me]
        self._expected = {each.source: (tag, each) for tag, each in self._incoming}
        self._sent = [_allot(self._outgoing, where) for _ in range(2)]
        self._received = [_allot(self._incoming, where) for _ in range(2)]
        self._by_source: dict[Source, list[tuple[int, Message]]] = {}
        for tag, each in self._outgoing:
            self._by_source.setdefault(each.source, []).append((tag, each))
        self._sending: list[list[Any]] = [[], []]
        self._arriving: list[dict[Source, Any]] = [{}, {}]
        self._specs: dict[Source, TensorSpec] = {}
        self._turn = 0
        self.sent_bytes = 0

    def begin(self) -> None:
        """Open a round: ask for all that the others will send in it."""
        self._turn = 1 - self._turn
        buffers = self._received[self._turn]
        with reaching():
            for work in self._sending[self._turn]:
                work.wait()
            self._sending[self._turn] = []
            self._arriving[self._turn] = {
                each.source: dist.irecv(buffers[tag], each.sender, self._group(each), tag)
                for tag, each in self._incoming
            }

    def send(self, source: Source, tensor: Tensor, *, fresh: bool) -> None:
        """Send an output of this round to all that read it."""
        for tag, each in self._by_source.get(source, ()):
            buffer = self._sent[self._turn][tag]
            if fresh:
                self._specs[source] = TensorSpec.of(tensor)
                header = [*self._specs[source].order, *[0] * _HEADER][:_HEADER]
                for sent in self._sent:
                    sent[tag][-_HEADER:] = torch.tensor(header, dtype=torch.uint8)
            self._shape(buffer, self._specs[source]).copy_(tensor.detach())
            with reaching():
                work = dist.isend(buffer, each.receiver, self._group(each), tag)
            self._sending[self._turn].append(work)
            self.sent_bytes += buffer.nbytes

    def receive(self, source: Source, *, fresh: bool) -> Tensor:
        """Return an output of this round (``fresh``) or of the round before; wait for it if need be."""
        turn = self._turn if fresh else 1 - self._turn
        work = self._arriving[turn].get(source)
        if work is not None:
            with reaching():
                work.wait()
            self._arriving[turn][source] = None
        tag, message = self._expected[source]
        buffer = self._received[turn][tag]
        if source not in self._specs:
            order = buffer[-_HEADER:].tolist()[: len(message.spec.shape)]
            self._specs[source] = message.spec.arrange(order)
        received = self._shape(buffer, self._specs[source])
        # What a fresh round has read is read once more, a round later: glue may change it in place meanwhile.
        return received.clone() if fresh else received

    def _shape(self, buffer: Tensor, spec: TensorSpec) -> Tensor:
        return spec.view(buffer[:-_HEADER].view(spec.dtype))

    def finish(self) -> None:
        """Wait until everything that was sent or asked for has passed."""
        for turn in (1 - self._turn, self._turn):
            for work in (*self._sending[turn], *self._arriving[turn].values()):
                if work is not None:
                    with reaching():
                        work.wait()
            self._sending[turn] = []
            self._arriving[turn] = dict.fromkeys(self._arriving[turn])

    def _group(self, message: Message) -> Any:
        return self._groups.get((message.sender, message.receiver))


def _allot(messages: Sequence[tuple[int, Message]], where: torch.device) -> dict[int, Tensor]:
    """Return a flat tensor for each message, those of one pair of devices cut from one buffer."""
    found: dict[int, Tensor] = {}
    pairs = {(each.sender, each.receiver) for _, each in messages}
    for pair in sorted(pairs):
        own = [(tag, each) for tag, each in messages if (each.sender, each.receiver) == pair]
        sizes = [-(-message_bytes(each) // _ALIGNMENT) * _ALIGNMENT for _, each in own]
        buffer = torch.zeros(sum(sizes), dtype=torch.uint8, device=where)
        for (tag, each), part in zip(own, buffer.split(sizes), strict=True):
            found[tag] = part[: message_bytes(each)]
    return found
