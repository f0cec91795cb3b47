"""Seats and messages of a layout that can be checked by eye."""

from __future__ import annotations

import torch

from aerogel.parallel.seating import plan_messages, seat_devices
from tests.unit.parallel.small import Denoiser, divide

X = torch.zeros(2, 8)


def test_every_component_has_a_device_that_reads_what_others_give() -> None:
    seating = seat_devices(divide(Denoiser(), 2, X), stride=1)
    assert seating.devices == seating.components == 2
    assert seating.owned == (
        frozenset({"blocks.0", "blocks.1"}),
        frozenset({"blocks.2", "blocks.3"}),
    )
    assert seating.read == (frozenset(), frozenset({("blocks.0", 0), ("blocks.1", 0)}))
    assert seating.shared == seating.read[1]
    assert seating.tail == 1


def test_a_stride_of_two_copies_the_last_component() -> None:
    layout = divide(Denoiser(), 2, X)
    seating = seat_devices(layout, stride=2)
    assert (seating.devices, seating.components) == (3, 2)
    assert seating.owned[2] == seating.owned[1]
    assert seating.read[2] == seating.read[1]


def test_messages_go_from_owner_to_reader_in_order_of_execution() -> None:
    layout = divide(Denoiser(), 2, X)
    messages = plan_messages(layout, seat_devices(layout, stride=2))
    told = [(each.source, each.sender, each.receiver) for each in messages]
    assert told == [
        (("blocks.0", 0), 0, 1),
        (("blocks.0", 0), 0, 2),
        (("blocks.1", 0), 0, 1),
        (("blocks.1", 0), 0, 2),
    ]
    assert sum(each.spec.size_bytes for each in messages) == 2 * layout.partition.traffic_bytes == 4 * 64


def test_messages_know_the_stretch_of_work_they_come_from() -> None:
    layout = divide(Denoiser(), 2, X)
    assert {each.segment for each in plan_messages(layout, seat_devices(layout, stride=2))} == {0}
    layout = divide(Denoiser(), 4, X)
    messages = plan_messages(layout, seat_devices(layout, stride=1))
    assert {each.segment: each.sender for each in messages} == {0: 0, 1: 1, 2: 2}
