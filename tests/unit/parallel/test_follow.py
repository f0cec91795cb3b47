"""A worker does what it is told over its pipe; here a group of one, told by the test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aerogel.parallel import follow
from aerogel.parallel.follow import serve
from aerogel.parallel.messages import Join, OpenLane, TakeModel, Turn, open_message, pack_message
from aerogel.parallel.numerics import Numerics
from aerogel.parallel.parcel import Packer
from aerogel.parallel.residency import dump_skeleton
from aerogel.parallel.rounds import Round
from tests.unit.parallel.small import Denoiser, divide

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _leave_the_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The worker is this process here, whose objects are not to be kept for ever.
    monkeypatch.setattr(gc, "freeze", lambda: None)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def tell(*messages: Any) -> list[Any]:
    """Return what a worker answers to all of these."""
    here, there = Pipe()
    for each in messages:
        here.send_bytes(pack_message(each))
    here.send_bytes(pack_message(None))
    answers: list[Any] = []

    class Ended(Exception):
        pass

    def send_bytes(data: bytes) -> None:
        answers.append(open_message(data))
        if answers[-1] is None:
            here.close()

    class Line:
        recv_bytes = there.recv_bytes

    line: Any = Line()
    line.send_bytes = send_bytes
    serve(line, 0, 1, CPU)
    there.close()
    return answers


def test_a_worker_follows_until_the_line_is_closed(tmp_path: Path) -> None:
    model = Denoiser()
    layout = divide(model, 1, X)
    join = Join((tmp_path / "store").as_uri(), "gloo", 60.0, Numerics.read())
    take = TakeModel("unet", dump_skeleton("unet", model))
    opening = OpenLane("unet/0", "unet", layout, 1, {1: ["of", "somebody", "else"]})
    # The weights of a lane come from rank 0, which is this one: it gets none.
    assert tell(join, take, opening) == [0, None]
    assert dist.get_world_size() == 1


def test_a_worker_keeps_to_its_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(follow, "keep_to", kept.append)
    tell(Join((tmp_path / "store").as_uri(), "gloo", 60.0, Numerics.read(), cores=(7,)))
    assert kept == [7]


def test_a_model_taken_again_forgets_its_lanes(tmp_path: Path) -> None:
    model = Denoiser()
    join = Join((tmp_path / "store").as_uri(), "gloo", 60.0, Numerics.read())
    take = TakeModel("unet", dump_skeleton("unet", model))
    opening = OpenLane("unet/0", "unet", divide(model, 1, X), 1, {})
    planned = Round((0,), fresh=True, body=0)
    parcel, _ = Packer(CPU).pack({0: ((X, 900.0), {})})
    turn = Turn("unet/0", planned, None, parcel, b"")
    with pytest.raises(KeyError, match="unet/0"):
        tell(join, take, opening, take, turn)
