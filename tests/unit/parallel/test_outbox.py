"""A sender goes on before its tensors are taken; what arrives is what was sent, in order."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from aerogel.parallel.outbox import Outbox
from tests.dist.group import run_group

_DELAY_S = 1.0


def take_part() -> Any:
    outbox, spent = Outbox(), []
    if dist.get_rank() == 0:
        for value in (1.0, 2.0):
            begin = time.monotonic()
            outbox.send(torch.full((1000,), value))
            spent.append(time.monotonic() - begin)
        begin = time.monotonic()
        outbox.wait()
        outbox.wait()
        return max(spent), time.monotonic() - begin
    time.sleep(_DELAY_S)
    found = []
    for _ in range(2):
        received = torch.zeros(1000)
        dist.broadcast(received, 0)
        found.append(received.unique().tolist())
    return found


def test_the_sender_is_held_up_only_where_it_waits() -> None:
    (sending, waiting), found = run_group(2, take_part)
    assert found == [[1.0], [2.0]]
    assert sending < _DELAY_S / 2 < waiting
