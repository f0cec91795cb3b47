"""What the first process says to the others, and how it reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.calls import Arguments, Calls
from aerogel.parallel.messages import Turn, open_message, pack_message
from aerogel.parallel.outbox import Outbox
from aerogel.parallel.parcel import Packer, Unpacker
from aerogel.parallel.peers import reaching
from aerogel.parallel.rounds import Round
from aerogel.parallel.session import Runner

_SHORT_BYTES = 4096
_INLINE_BYTES = 2**17


class Line(Protocol):
    """Carry messages from the first process to all others."""

    def tell(self, message: Any) -> None:
        """Send ``message`` to everybody."""
        ...


class GroupLine:
    """Carry messages over a process group of the gloo back end."""

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self._outbox = Outbox(group)

    def tell(self, message: Any) -> None:
        """Send ``message`` to every rank of the group; rank 0 calls this, the others :meth:`hear`."""
        data = pack_message(message)
        short = torch.zeros(_SHORT_BYTES, dtype=torch.uint8)
        head = len(data).to_bytes(8, "little") + data[: _SHORT_BYTES - 8]
        short[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        self._outbox.wait()
        self._outbox.send(short)
        if len(data) > _SHORT_BYTES - 8:
            self._outbox.send(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def finish(self) -> None:
        """Wait until all has been heard."""
        self._outbox.wait()

    def hear(self) -> Any:
        """Return the next message."""
        short = torch.zeros(_SHORT_BYTES, dtype=torch.uint8)
        with reaching():
            dist.broadcast(short, 0, self._group)
        head = short.numpy().tobytes()
        size = int.from_bytes(head[:8], "little")
        if size <= _SHORT_BYTES - 8:
            return open_message(head[8 : 8 + size])
        whole = torch.zeros(size, dtype=torch.uint8)
        with reaching():
            dist.broadcast(whole, 0, self._group)
        return open_message(whole.numpy().tobytes())


class Speaker:
    """Run one lane's rounds on the first process, after telling the others what to run."""

    def __init__(self, line: Line, lane: str, runner: Runner, where: torch.device) -> None:
        self.runner = runner
        self._line, self._lane, self._where = line, lane, where
        self._packer = Packer(where)
        self._outbox = Outbox()

    def run(self, planned: Round, calls: Calls) -> list[Any]:
        """Return the denoiser's output for each step that the round answers."""
        self._outbox.wait()
        parcel, buffer = self._packer.pack(dict(calls.arguments))
        limit = _INLINE_BYTES if self._where.type == "cpu" else 0
        data = buffer.cpu().numpy().tobytes() if parcel.size_bytes <= limit else None
        self._line.tell(Turn(self._lane, planned, _read_autocast(self._where), parcel, data))
        if data is None:
            self._outbox.send(buffer)
        return self.runner.run(planned, calls)


class Listener:
    """Run one lane's rounds on another process, on the first one's arguments."""

    def __init__(self, runner: Runner, where: torch.device) -> None:
        self.runner = runner
        self._where = where
        self._unpacker = Unpacker()

    def run(self, turn: Turn, forward: Any) -> list[Any]:
        """Return the denoiser's output for each step that the round answers."""
        buffer = torch.empty(turn.parcel.size_bytes, dtype=torch.uint8, device=self._where)
        if turn.data is None:
            with reaching():
                dist.broadcast(buffer, 0)
        elif turn.data:
            # Into memory of torch's own, whose alignment the parcel counts on.
            buffer.copy_(torch.frombuffer(bytearray(turn.data), dtype=torch.uint8))
        arguments: dict[int, Arguments] = self._unpacker.unpack(turn.parcel, buffer)
        with _autocast(self._where, turn.autocast):
            return self.runner.run(turn.planned, Calls(forward, arguments))


def _read_autocast(where: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(where.type) if torch.is_autocast_enabled(where.type) else None


def _autocast(where: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(where.type, dtype)


def send_tensors(tensors: Sequence[Tensor], receiver: int, where: torch.device) -> None:
    """Send tensors to the process ``receiver``, one by one, in their own layout."""
    for tensor in tensors:
        if tensor.numel():
            data = _as_bytes(tensor.detach().to(where))
            with reaching():
                dist.send(data, receiver)


def receive_tensor(like: Tensor, where: torch.device) -> Tensor:
    """Return the next tensor that the first process sends, which looks like ``like``."""
    made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=where)
    flat = torch.empty(like.nbytes, dtype=torch.uint8, device=where)
    if like.nbytes:
        with reaching():
            dist.recv(flat, 0)
        made.copy_(flat.view(like.dtype).view(like.shape))
    return made


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
