"""Figures are those of the rounds that ran."""

from __future__ import annotations

import json

import pytest
import torch

from aerogel.parallel.exchange import message_bytes
from aerogel.parallel.seating import plan_messages, seat_devices
from aerogel.parallel.session import Timing
from aerogel.parallel.stats import LaneStats, Stats, count_round_bytes, sum_up
from tests.unit.parallel.small import Denoiser, divide

LAYOUT = divide(Denoiser(blocks=6), 2, torch.zeros(2, 8))
IMAGE = [
    Timing(True, 1, 0.5),
    Timing(True, 1, 0.4),
    Timing(False, 2, 0.3),
    Timing(False, 2, 0.5),
    Timing(False, 1, 0.2),
]


def sum_up_images(count: int) -> LaneStats:
    return sum_up("unet", LAYOUT, count * IMAGE, stride=2, warmup=2, last=IMAGE, resident_bytes=[8, 16])


def test_figures_are_of_the_last_image_and_times_of_all() -> None:
    found = sum_up_images(2)
    assert (found.devices, found.steps, found.rounds) == (3, 7, 5)
    assert found.warmup_step_s == pytest.approx(0.4)  # 0.4, 0.5 and 0.4: the first of all is left out
    assert found.parallel_step_s == pytest.approx(0.2)
    slowest = max(LAYOUT.partition.loads)
    assert found.predicted_speedup == pytest.approx(7 / (2 + 3 * slowest))


def test_bytes_of_a_round_are_those_of_its_messages() -> None:
    for stride in (1, 2):
        messages = plan_messages(LAYOUT, seat_devices(LAYOUT, stride))
        assert count_round_bytes(LAYOUT, stride) == sum(map(message_bytes, messages))
    assert count_round_bytes(LAYOUT, 2) > count_round_bytes(LAYOUT, 1) > 0


def test_what_was_not_measured_is_none() -> None:
    found = sum_up("unet", LAYOUT, IMAGE[:1], stride=1, warmup=1, last=[])
    assert (found.warmup_step_s, found.parallel_step_s, found.steps) == (None, None, 0)
    assert "in the warm-up" not in str(found)


def test_figures_are_shown_and_stored() -> None:
    stats = Stats((sum_up_images(1),))
    assert json.loads(json.dumps(stats.to_dict()))["lanes"][0]["resident_bytes"] == [8, 16]
    assert "5 rounds for 7 steps" in str(stats)
    assert "(2.00 times as long)" in str(stats)
    assert str(Stats(())) == "nothing was denoised yet"
