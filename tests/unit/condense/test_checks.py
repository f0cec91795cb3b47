"""Single settings that need more than a comparison."""

from __future__ import annotations

import pytest

from aerogel.condense.checks import WIDTH_STEPS, check_weak_teachers, check_width, last_weak_teacher


@pytest.mark.parametrize("network", ["vit-t", "swin-t"])
def test_heads_share_a_width_evenly(network: str) -> None:
    assert check_width("width", network, 4) == [f"width: expected a multiple of 3 for {network}; got 4"]
    assert check_width("width", network, 6) == check_width("width", network, None) == []
    assert check_width("width", "resnet18", 7) == []
    assert WIDTH_STEPS[network] == 3


def test_snapshots_are_counted_or_named_from_one() -> None:
    assert check_weak_teachers(2) == check_weak_teachers((1, 3)) == []
    for wrong in (0, -1, (), (0, 1), (2, 2)):
        assert len(check_weak_teachers(wrong)) == 1
    assert (last_weak_teacher(2), last_weak_teacher((3, 1))) == (2, 3)
