"""What is shown of classes that arrive in groups."""

from __future__ import annotations

import pytest

from aerogel.cli.continual import show_lanes
from aerogel.cli.screen import Screen
from aerogel.condense.curriculum import Curriculum, Lane, sum_up_steps


def test_a_row_for_each_lane_and_a_column_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    lane = Lane("generator", "random", sum_up_steps([[90.0, 80.0], [92.0, 84.0]]))
    show_lanes(Curriculum((5, 10), (lane,)), Screen())
    said = capsys.readouterr().out
    for word in ("5 classes", "10 classes", "random images, label generator", "91.0 ± 1.4", "86.5"):
        assert word in said
