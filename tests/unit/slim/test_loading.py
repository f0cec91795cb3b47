"""Views come in the order that is asked for, whatever else was looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aerogel.slim.canvas import Canvas
from aerogel.slim.config import AlignConfig, Augment
from aerogel.slim.loading import count_repeated, load_views
from tests.unit.slim.lessons import Pictures

ORDER = [(0, 2), (0, 1), (1, 2), (3, 4), (0, 0), (0, 1)]


def test_whole_photos_come_as_they_are() -> None:
    photos, canvas = Pictures(), Canvas(64)
    for (_, number), view in zip(ORDER, load_views(photos, canvas, AlignConfig(), 0, ORDER), strict=True):
        pixels, placement = canvas.place(photos[number].image)
        assert (view.number, view.identifier) == (number, photos.ids[number])
        assert view.scaled == placement.scaled
        assert torch.equal(view.pixels, pixels)


def test_half_of_the_views_are_mosaics_of_photos_that_differ() -> None:
    config = AlignConfig(augment="mosaic")
    order = [(epoch, number) for epoch in range(8) for number in range(5)]
    views = list(load_views(Pictures(), Canvas(64), config, 5, order))
    crops = list(load_views(Pictures(), Canvas(64), replace(config, augment="crop"), 5, order))
    same = [np.array_equal(one.image, other.image) for one, other in zip(views, crops, strict=True)]
    assert 12 <= sum(same) <= 28
    mosaics = [view for view, alike in zip(views, same, strict=True) if not alike]
    assert all(view.scaled == (64, 64) and view.image.shape == (64, 64, 3) for view in mosaics)
    assert all(view.number >= count_repeated(5, config) for view in views)


@pytest.mark.parametrize("augment", ["flip", "crop", "mosaic"])
def test_views_depend_on_epoch_and_number_alone(augment: Augment) -> None:
    photos, canvas, config = Pictures(), Canvas(64), AlignConfig(augment=augment)
    views = list(load_views(photos, canvas, config, 5, ORDER))
    alone = [next(iter(load_views(photos, canvas, config, 5, [place]))) for place in ORDER]
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(views, alone, strict=True))
    assert torch.equal(views[1].pixels, views[5].pixels)
    seeds = [view.seed for view in views]
    assert seeds == [view.seed for view in alone] and len({*seeds}) == len({*ORDER})
    numbers = [(epoch, 2) for epoch in range(8)]
    looks = [view.pixels for view in load_views(photos, canvas, config, 5, numbers)]
    assert any(not torch.equal(looks[0], look) for look in looks[1:])


def test_views_are_shown_again_in_turn() -> None:
    config = AlignConfig(augment="crop", views=3)
    order = [(epoch, number) for epoch in range(6) for number in range(5)]
    views = list(load_views(Pictures(), Canvas(64), config, 5, order))
    anew = list(load_views(Pictures(), Canvas(64), replace(config, views=0), 5, order))
    for index, view in enumerate(views):
        assert view.number == index % 15
        assert torch.equal(view.pixels, anew[index % 15].pixels)
    assert any(not torch.equal(view.pixels, other.pixels) for view, other in zip(views, anew, strict=True))
    assert [view.number for view in anew] == list(range(5, 35))


def test_what_is_shown_again_is_counted() -> None:
    counts = {
        (augment, views): count_repeated(7, AlignConfig(augment=augment, views=views, epochs=8))
        for augment, views in (("none", 0), ("flip", 0), ("flip", 2), ("crop", 0), ("crop", 4), ("mosaic", 0))
    }
    assert list(counts.values()) == [7, 7, 14, 0, 28, 0]


@pytest.mark.parametrize(("augment", "views"), [("none", 0), ("flip", 0), ("crop", 0), ("mosaic", 2)])
def test_runs_that_share_a_place_may_keep_every_view(augment: Augment, views: int) -> None:
    config = AlignConfig(augment=augment, views=views, epochs=3)
    order = [(epoch, number) for epoch in range(3) for number in range(5)]
    shown = [view.number for view in load_views(Pictures(), Canvas(64), config, 5, order)]
    assert max(shown) < count_repeated(5, config, shared=True) <= 4 * 5


@pytest.mark.parametrize(
    ("epochs", "views", "count"), [(1, 0, 0), (2, 0, 7), (3, 4, 0), (4, 4, 0), (6, 4, 14)]
)
def test_what_a_short_run_shows_once_is_not_counted(epochs: int, views: int, count: int) -> None:
    assert count_repeated(7, AlignConfig(augment="flip", views=views, epochs=epochs)) == count
    shown: list[int | None] = []
    config = AlignConfig(augment="none", views=views, epochs=epochs)
    for view in load_views(
        Pictures(), Canvas(64), config, 5, [(e, n) for e in range(epochs) for n in range(5)]
    ):
        shown.append(view.number)
    again = {number for number in shown if shown.count(number) > 1}
    assert again == set(range(count * 5 // 7))
