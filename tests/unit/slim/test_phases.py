"""Alignings are listed in the order in which they run."""

from __future__ import annotations

import pytest

from aerogel.slim.config import MasksConfig, Method, SlimConfig
from aerogel.slim.phases import list_alignings


@pytest.mark.parametrize(
    ("method", "lessons"), [("alternate", ["bottleneck", "embedding"]), ("one-step", ["output"])]
)
def test_masks_come_last_if_they_come(method: Method, lessons: list[str]) -> None:
    wanted = [(f"{lesson}-aligning", lesson) for lesson in lessons]
    assert list_alignings(SlimConfig(method=method)) == wanted
    taught = list_alignings(SlimConfig(method=method, masks=MasksConfig(epochs=1)))
    assert taught == [*wanted, ("masks-aligning", "masks")]
