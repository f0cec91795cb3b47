"""Views are functions of their numbers, and parts of the photo."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aerogel.slim.views import DRAWS, MOSAIC_DRAWS, lay_mosaic, show

# Every pixel says where it is.
PLACES = np.stack(np.broadcast_arrays(np.arange(50)[:, None], np.arange(80)[None], 7), -1).astype(np.uint8)


def test_a_photo_as_it_is() -> None:
    view = show(PLACES, "none", np.zeros(DRAWS))
    assert view.image is PLACES and view.whole


def test_every_other_photo_is_mirrored() -> None:
    left = show(PLACES, "flip", np.array([0.49, 0, 0, 0, 0]))
    right = show(PLACES, "flip", np.array([0.5, 0, 0, 0, 0]))
    assert np.array_equal(left.image, PLACES[:, ::-1]) and not left.whole
    assert np.array_equal(right.image, PLACES) and right.whole
    assert left.image.flags.c_contiguous


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS))
def test_parts_are_rectangles_of_the_photo(draws: list[float]) -> None:
    view = show(PLACES, "crop", np.array(draws))
    height, width = view.image.shape[:2]
    image = view.image[:, ::-1] if draws[0] < 0.5 else view.image
    top, left = int(image[0, 0, 0]), int(image[0, 0, 1])
    assert np.array_equal(image, PLACES[top : top + height, left : left + width])
    assert not view.whole
    # Close to square as far as the photo allows, and no smaller than the least share of it.
    assert 0.7 < width / height < 1.7
    assert 0.28 * PLACES[..., 0].size < height * width


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_small_photos_have_parts_too(height: int, width: int, draw: float) -> None:
    view = show(np.zeros((height, width, 3), np.uint8), "crop", np.full(DRAWS, draw))
    assert 1 <= view.image.shape[0] <= height and 1 <= view.image.shape[1] <= width


def test_a_mosaic_has_a_part_of_each_photo() -> None:
    images = [np.full((40 + 7 * tone, 60, 3), tone, np.uint8) for tone in range(4)]
    draws = np.full(MOSAIC_DRAWS, 0.5)
    draws[:2] = 0.0, 0.75
    view = lay_mosaic(images, 50, draws)
    assert view.image.shape == (50, 50, 3) and not view.whole
    wanted = np.zeros((50, 50), np.uint8)
    wanted[:15, 30:], wanted[15:, :30], wanted[15:, 30:] = 1, 2, 3
    assert (view.image == wanted[..., None]).all()


@given(st.integers(0, 3), st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_tiles_are_parts_of_their_photos_in_shape(tile: int, draws: list[float]) -> None:
    numbers = np.full(MOSAIC_DRAWS, 0.5)
    numbers[2 + 4 * tile : 6 + 4 * tile] = draws
    # One tile is 48 pixels tall and wide, and its photo grows brighter by a tone a pixel.
    view = lay_mosaic([PLACES] * 4, 96, numbers).image[48 * (tile // 2) :, 48 * (tile % 2) :][:48, :48]
    part = (view[:, ::-1] if draws[0] < 0.5 else view).astype(int)
    rows, columns = part[:, 24, 0], part[24, :, 1]
    assert (np.diff(rows) >= 0).all() and (np.diff(columns) >= 0).all()
    # Of 50 x 80 pixels the largest square is 50; 0.3 of its area have sides of 27.
    for line, size in ((rows, 50), (columns, 80)):
        assert line[0] >= 0 and line[-1] < size and 24 <= line[-1] - line[0] < 50
    assert abs((rows[-1] - rows[0]) - (columns[-1] - columns[0])) <= 2


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_small_photos_make_mosaics_too(height: int, width: int, draw: float) -> None:
    photo = np.full((height, width, 3), 9, np.uint8)
    assert (lay_mosaic([photo] * 4, 20, np.full(MOSAIC_DRAWS, draw)).image == 9).all()
