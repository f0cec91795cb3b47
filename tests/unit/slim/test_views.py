"""Views are functions of their numbers, and parts of the photo."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aerogel.slim.views import DRAWS, show

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
