"""Views come in the order that is asked for, whatever else was looked at."""

from __future__ import annotations

import pytest
import torch

from aerogel.slim.canvas import Canvas
from aerogel.slim.config import Augment
from aerogel.slim.loading import load_views
from tests.unit.slim.lessons import Pictures

ORDER = [(0, 2), (0, 1), (1, 2), (3, 4), (0, 0), (0, 1)]


def test_whole_photos_come_as_they_are() -> None:
    photos, canvas = Pictures(), Canvas(64)
    for (_, number), view in zip(ORDER, load_views(photos, canvas, "none", 0, ORDER), strict=True):
        pixels, placement = canvas.place(photos[number].image)
        assert (view.index, view.identifier, view.whole) == (number, photos.ids[number], True)
        assert view.scaled == placement.scaled
        assert torch.equal(view.pixels, pixels)


@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_views_depend_on_epoch_and_number_alone(augment: Augment) -> None:
    photos, canvas = Pictures(), Canvas(64)
    views = list(load_views(photos, canvas, augment, 5, ORDER))
    alone = [next(iter(load_views(photos, canvas, augment, 5, [place]))) for place in ORDER]
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(views, alone, strict=True))
    assert torch.equal(views[1].pixels, views[5].pixels)
    numbers = [(epoch, 2) for epoch in range(8)]
    looks = [view.pixels for view in load_views(photos, canvas, augment, 5, numbers)]
    assert any(not torch.equal(looks[0], look) for look in looks[1:])
