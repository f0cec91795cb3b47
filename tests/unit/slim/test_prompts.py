from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError, DataError
from aerogel.slim.prompts import draw_point, find_centre, make_prompts, square_distances
from tests.unit.slim.stand_ins import one_mask, rectangles


def slow_distances(mask: np.ndarray) -> np.ndarray:
    """Look at every pixel outside the mask, those around the array included, for each pixel."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    found = np.zeros(padded.shape, dtype=np.int64)
    for y, x in np.argwhere(padded):
        found[y, x] = ((outside - [y, x]) ** 2).sum(axis=1).min()
    return found[1:-1, 1:-1]


@given(st.integers(0, 10_000), st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.5, 0.8, 0.97, 1.0]))
def test_distances_are_those_of_looking_everywhere(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(square_distances(mask), slow_distances(mask))


def test_distances_in_wide_shapes_with_holes_are_exact_too() -> None:
    generator = np.random.default_rng(1)
    for number in range(6):
        mask = np.zeros((70, 55), bool)
        for _ in range(3):
            top, left = generator.integers(0, 50, 2)
            mask[top : top + generator.integers(5, 60), left : left + generator.integers(5, 55)] = True
        mask = ~mask if number % 3 == 0 else mask
        assert np.array_equal(square_distances(mask), slow_distances(mask))


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (31, 31), (2, 60)])
def test_the_centre_is_as_far_from_the_border_as_any_pixel(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[3 : 3 + shape[0], 2 : 2 + shape[1]] = generator.random(shape) < 0.98
    mask[3, 2] = True
    x, y = find_centre(mask)
    distances = slow_distances(mask)
    first = np.unravel_index(distances.argmax(), distances.shape)
    assert (y, x) == tuple(map(int, first))


def test_of_equally_far_pixels_the_first_is_the_centre() -> None:
    mask = np.ones((4, 9), bool)
    assert find_centre(mask) == (1, 1)
    two = np.zeros((12, 12), bool)
    two[1:4, 7:10] = two[7:10, 1:4] = True
    assert find_centre(two) == (8, 2)
    assert find_centre(two.T) == (8, 2)


def test_a_centre_lies_inside_a_ring() -> None:
    y, x = np.mgrid[:50, :50]
    square = (y - 25) ** 2 + (x - 25) ** 2
    ring = (square < 22**2) & (square > 10**2)
    column, row = find_centre(ring)
    assert ring[row, column]
    assert 14 <= np.hypot(column - 25, row - 25) <= 18


def test_random_points_are_uniform_over_the_mask() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1, 2] = mask[3, 4] = mask[5, 0] = mask[5, 6] = True
    counts = np.zeros(mask.shape)
    for name in range(2000):
        x, y = draw_point(mask, seed=0, image="a.jpg", name=str(name))
        counts[y, x] += 1
    assert counts[~mask].sum() == 0
    assert (np.abs(counts[mask] - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_random_points_depend_on_seed_turn_image_and_object_only() -> None:
    mask = np.ones((100, 100), bool)
    first = draw_point(mask, seed=0, image="a", name="1")
    assert draw_point(mask, seed=0, image="a", name="1") == first
    others = {
        draw_point(mask, seed=1, image="a", name="1"),
        draw_point(mask, seed=0, image="b", name="1"),
        draw_point(mask, seed=0, image="a", name="2"),
        draw_point(mask, seed=0, image="a", name="1", turn=1),
    }
    assert len(others | {first}) == 5
    photo = rectangles()
    whole = make_prompts(photo, "point", range(3), photo.masks())
    last = make_prompts(photo, "point", [2], photo.masks([2]))
    assert np.array_equal(whole[2:], last)


def test_prompts_of_a_photo() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 10:17] = True
    photo = one_mask(mask, point=(11.0, 5.0))
    masks = photo.masks()
    assert make_prompts(photo, "box", [0], masks).tolist() == [[10, 4, 17, 9]]
    assert make_prompts(photo, "stored", [0], masks).tolist() == [[11, 5]]
    assert make_prompts(photo, "centre", [0], masks).tolist() == [[12, 6]]
    ((x, y),) = make_prompts(photo, "point", [0], masks).astype(int).tolist()
    assert mask[y, x]


def test_what_cannot_be_prompted_is_refused() -> None:
    photo = one_mask(np.ones((9, 9), bool))
    with pytest.raises(DataError, match="points stored with one"):
        make_prompts(photo, "stored", [0], photo.masks())
    with pytest.raises(ConfigError, match="point, centre, stored, box"):
        make_prompts(photo, "middle", [0], photo.masks())  # type: ignore[arg-type]
    empty = np.zeros((9, 9), bool)
    with pytest.raises(DataError, match="object 7 of a"):
        draw_point(empty, seed=0, image="a", name="7")
    with pytest.raises(DataError, match="mask with pixels"):
        find_centre(empty)
