"""Messages and tensors pass between processes whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from aerogel.parallel.calls import Calls
from aerogel.parallel.line import GroupLine, Listener, Speaker, receive_tensor, send_tensors
from aerogel.parallel.messages import open_message, pack_message
from aerogel.parallel.rounds import Round
from tests.dist.group import run_group

CPU = torch.device("cpu")
ROUND = Round((3, 4), fresh=False, body=4, tails=(3,))
TEXTS = [b"", b"short", *(bytes(size) for size in (4000, 4060, 4070, 4080, 4088, 4096, 5000)), bytes(100_000)]


def make_tensors() -> list[Tensor]:
    """Return tensors of many kinds and layouts."""
    image = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    return [
        image,
        image.contiguous(memory_format=torch.channels_last),
        image.to(torch.bfloat16).permute(3, 1, 0, 2),
        torch.tensor(7),
        torch.zeros(0, 3),
        torch.arange(10) > 4,
        torch.polar(torch.ones(5), torch.arange(5.0)),
        torch.arange(24.0).reshape(4, 6)[:, ::2],
    ]


class Recorder:
    """Note what a round is run on."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def run(self, planned: Round, calls: Calls) -> list[Any]:
        cast = torch.is_autocast_enabled("cpu") and str(torch.get_autocast_dtype("cpu"))
        self.found.append((str(planned), [calls(step) for step in planned.steps], cast))
        return ["answer"]


def forward(sample: Tensor, timestep: float, text: Tensor) -> list[Any]:
    return [sample.tolist(), timestep, text.sum().item()]


def speak() -> list[Any]:
    line, recorder, text = GroupLine(), Recorder(), torch.ones(1000)
    for each in TEXTS:
        line.tell(each)
    send_tensors(make_tensors(), 1, CPU)
    speaker = Speaker(line, "unet/0", recorder, CPU)
    for value, count in ((1.0, 100), (2.0, 100), (3.0, 40_000)):
        sample = torch.full((count,), value)
        arguments: Any = {step: ((sample, 10.0 * step), {"text": text}) for step in (4, 3)}
        with torch.autocast("cpu", torch.bfloat16, enabled=value == 2.0):
            assert speaker.run(ROUND, Calls(forward, arguments)) == ["answer"]
    return recorder.found


def listen() -> list[Any]:
    line, recorder = GroupLine(), Recorder()
    assert [line.hear() for _ in TEXTS] == TEXTS
    for each in make_tensors():
        like = torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")
        found = receive_tensor(like, CPU)
        assert torch.equal(found, each)
        assert (found.stride(), found.dtype) == (each.stride(), each.dtype)
    listener = Listener(recorder, CPU)
    sizes, inside = [], []
    for _ in range(3):
        turn = line.hear()
        sizes.append(turn.parcel.size_bytes)
        inside.append(turn.data is not None)
        assert (turn.lane, turn.planned) == ("unet/0", ROUND)
        assert listener.run(turn, forward) == ["answer"]
    # The text, 4000 bytes, is not sent again.
    assert sizes[0] - sizes[1] == 4032
    # What is large comes by itself.
    assert inside == [True, True, False]
    return recorder.found


def take_part() -> list[Any]:
    return speak() if dist.get_rank() == 0 else listen()


def test_all_that_is_said_is_heard() -> None:
    spoken, heard = run_group(2, take_part)
    assert heard == spoken
    assert [cast for _, _, cast in heard] == [False, "torch.bfloat16", False]


def test_a_message_of_any_length_is_framed() -> None:
    sizes = {len(pack_message(each)) for each in TEXTS}
    assert any(4070 < size <= 4088 for size in sizes)
    assert any(4088 < size < 4120 for size in sizes)
    assert all(open_message(pack_message(each)) == each for each in TEXTS)


@pytest.mark.parametrize("tensors", [[], [torch.zeros(0)]])
def test_nothing_to_send_needs_no_group(tensors: list[Tensor]) -> None:
    send_tensors(tensors, 1, CPU)
    assert receive_tensor(torch.zeros(0, 2, device="meta"), CPU).shape == (0, 2)
