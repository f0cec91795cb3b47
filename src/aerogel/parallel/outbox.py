"""What is on its way to the other processes: the sender goes on, and is held up only when it laps them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.peers import reaching


class Outbox:
    """Broadcast tensors without waiting for those who receive them.

    A broadcast of a process group ends for its sender when the last receiver has come to it. A sender that
    waited there would lose what it may be ahead: the rounds of the others need it, not the other way round.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self._under_way: list[tuple[Any, Tensor]] = []

    def send(self, tensor: Tensor) -> None:
        """Begin to send ``tensor``, which must stay as it is, to all other ranks of the group."""
        with reaching():
            work = dist.broadcast(tensor, dist.get_rank(), self._group, async_op=True)
        self._under_way.append((work, tensor))

    def wait(self) -> None:
        """Wait until all that was sent so far has arrived.

        Raises:
            LostError: another rank has ended, or does not answer.
        """
        waited, self._under_way = self._under_way, []
        for work, _ in waited:
            with reaching():
                work.wait()
