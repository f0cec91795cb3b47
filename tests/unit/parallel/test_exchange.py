"""Tensors arrive whole, in the layout they left in, and stay until the next round is over."""

from __future__ import annotations

from typing import Any

import torch

from aerogel.parallel.exchange import Exchange, join_messages, message_bytes
from aerogel.parallel.seating import Message
from aerogel.parallel.trace import TensorSpec
from tests.dist.group import run_group

PLAIN = TensorSpec((2, 3), (3, 1), torch.float32)
HALF = TensorSpec((4, 2, 2, 2), (8, 4, 2, 1), torch.bfloat16)
MESSAGES = (
    Message(("head", 0), PLAIN, 0, 1),
    Message(("head", 1), HALF, 0, 1),
    Message(("tail", 0), PLAIN, 1, 0),
)


def make(source: tuple[str, int], turn: int) -> torch.Tensor:
    """Return the tensor that ``source`` gives in round ``turn``; the second output is channels-last."""
    spec = next(each.spec for each in MESSAGES if each.source == source)
    values = torch.arange(torch.Size(spec.shape).numel()).reshape(spec.shape) + 100 * turn
    tensor = values.to(spec.dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if source == ("head", 1) else tensor


def pass_three_rounds() -> list[Any]:
    me = torch.distributed.get_rank()
    exchange = Exchange(MESSAGES, me, torch.device("cpu"))
    found: list[Any] = []
    for turn in range(3):
        exchange.begin()
        for each in MESSAGES:
            if each.sender == me:
                exchange.send(each.source, make(each.source, turn), fresh=turn == 0)
        for each in MESSAGES:
            if each.receiver == me:
                got = exchange.receive(each.source, fresh=turn == 0)
                found.append((turn, each.source, got.float().tolist(), got.stride()))
    exchange.finish()
    return [found, exchange.sent_bytes]


def test_a_round_gives_what_was_sent_in_it_or_in_the_one_before() -> None:
    (of_first, sent_first), (of_second, sent_second) = run_group(2, pass_three_rounds)
    # Fresh in round 0; in rounds 1 and 2 what the round before sent.
    for found, own in ((of_first, ["tail"]), (of_second, ["head"])):
        assert {source[0] for _, source, _, _ in found} == set(own)
        for turn, source, values, strides in found:
            expected = make(source, max(0, turn - 1))
            assert values == expected.float().tolist()
            assert strides == expected.stride()
    assert sent_first == 3 * (message_bytes(MESSAGES[0]) + message_bytes(MESSAGES[1]))
    assert sent_second == 3 * message_bytes(MESSAGES[2])


def test_a_message_is_the_tensor_and_eight_bytes_aligned() -> None:
    assert message_bytes(MESSAGES[0]) == 64 >= 6 * 4 + 8
    assert message_bytes(MESSAGES[1]) == 128 >= 32 * 2 + 8


def message(number: int, size: int, sender: int = 0, receiver: int = 1, segment: int = 0) -> Message:
    return Message(
        (f"unit{number}", 0), TensorSpec((size,), (1,), torch.uint8), sender, receiver, segment=segment
    )


def test_small_messages_of_one_stretch_travel_as_one() -> None:
    messages = [
        message(0, 100),
        message(1, 100, receiver=2),
        message(2, 300_000),
        message(3, 100),
        message(4, 100),
        message(5, 100, segment=2),
        message(6, 100, sender=1, receiver=0, segment=1),
    ]
    bundles = join_messages(messages)
    names = [[each.source[0] for each in bundle.messages] for bundle in bundles]
    assert names == [["unit0", "unit2"], ["unit1"], ["unit3", "unit4"], ["unit5"], ["unit6"]]
    assert [(each.sender, each.receiver) for each in bundles] == [(0, 1), (0, 2), (0, 1), (0, 1), (1, 0)]
    assert sum(each.size_bytes for each in bundles) == sum(map(message_bytes, messages))
