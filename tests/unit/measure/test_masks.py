from __future__ import annotations

from math import hypot

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError, DataError
from aerogel.measure.masks import boundary_band, boundary_iou, fill_boxes, find_boxes, mask_iou


def blobs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw masks of a few overlapping rectangles each; some touch the image's border."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), dtype=bool)
    for mask in masks:
        for _ in range(3):
            top, left = generator.integers(0, height), generator.integers(0, width)
            tall, wide = generator.integers(1, height), generator.integers(1, width)
            mask[top : top + tall, left : left + wide] = True
    return masks


def slow_iou(one: np.ndarray, other: np.ndarray) -> float:
    common = either = 0
    for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
        common += a and b
        either += a or b
    return common / either if either else 1.0


def slow_band(mask: np.ndarray, reach: int) -> np.ndarray:
    """Erode as often as the reach says, one 3 x 3 square at a time, with nothing outside the image."""
    height, width = mask.shape
    inside = mask.copy()
    for _ in range(reach):
        before = np.pad(inside, 1)
        for y in range(height):
            for x in range(width):
                inside[y, x] = before[y : y + 3, x : x + 3].all()
    return mask & ~inside


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_iou_is_that_of_counting_pixels(seed: int, height: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.random((2, 4, height, width)) < 0.4
    expected = [slow_iou(a, b) for a, b in zip(one, other, strict=True)]
    assert mask_iou(one, other).tolist() == expected
    assert mask_iou(other, torch.from_numpy(one)).tolist() == expected


def test_empty_masks_agree_with_each_other_only() -> None:
    empty, full = np.zeros((1, 4, 5), bool), np.ones((1, 4, 5), bool)
    for measure in (mask_iou, boundary_iou):
        assert measure(empty, empty).tolist() == [1.0]
        assert measure(empty, full).tolist() == [0.0]
        assert measure(full, empty).tolist() == [0.0]
        assert measure(full, full).tolist() == [1.0]
        assert measure(full[0], full[0]).tolist() == [1.0]
        assert measure(np.zeros((0, 4, 5), bool), np.zeros((0, 4, 5), bool)).tolist() == []


@pytest.mark.parametrize(
    ("height", "width", "share"), [(17, 23, 0.02), (24, 16, 0.1), (9, 31, 0.15), (8, 8, 0.9)]
)
def test_boundary_iou_is_that_of_repeated_erosion(height: int, width: int, share: float) -> None:
    one, other = blobs(5, height, width), blobs(5, height, width, seed=1)
    reach = max(1, round(share * hypot(height, width)))
    bands = [[slow_band(mask, reach) for mask in masks] for masks in (one, other)]
    assert np.array_equal(boundary_band(one, share=share).numpy(), np.stack(bands[0]))
    expected = [slow_iou(a, b) for a, b in zip(*bands, strict=True)]
    assert boundary_iou(one, other, share=share).tolist() == expected


def test_many_masks_are_taken_in_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = blobs(7, 12, 13)
    whole = boundary_band(masks)
    monkeypatch.setattr("aerogel.measure.masks._PIXELS_AT_ONCE", 2 * 12 * 13)
    assert torch.equal(boundary_band(masks), whole)


def test_a_coarse_outline_costs_boundary_iou_more() -> None:
    y, x = np.mgrid[:100, :100]
    disc = ((y - 50) ** 2 + (x - 50) ** 2 < 40**2)[None]
    coarse = disc.reshape(1, 25, 4, 25, 4).any(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)
    assert mask_iou(disc, coarse).item() > 0.9
    assert boundary_iou(disc, coarse).item() < 0.4


def test_boxes_are_tight_and_filling_them_gives_rectangles_back() -> None:
    masks = np.zeros((4, 6, 7), bool)
    masks[0, 0, 0] = True
    masks[1, 2:5, 3:7] = True
    masks[2, 1, 1] = masks[2, 4, 5] = True
    boxes = find_boxes(masks)
    assert boxes.tolist() == [[0, 0, 1, 1], [3, 2, 7, 5], [1, 1, 6, 5], [0, 0, 0, 0]]
    filled = fill_boxes(boxes, (6, 7)).numpy()
    assert np.array_equal(filled[[0, 1, 3]], masks[[0, 1, 3]])
    assert filled[2].sum() == 20
    assert find_boxes(masks[1]).tolist() == [[3, 2, 7, 5]]
    assert find_boxes(np.zeros((0, 6, 7), bool)).shape == (0, 4)


def test_filled_boxes_hold_pixels_by_their_centres() -> None:
    assert fill_boxes([[0.4, -3.0, 2.6, 1.0]], (3, 4))[0].int().tolist() == [[1, 1, 1, 0], [0] * 4, [0] * 4]


def test_bad_masks_are_refused() -> None:
    good = np.zeros((2, 4, 4), bool)
    with pytest.raises(DataError, match=r"boolean masks \[N, H, W\].*uint8"):
        mask_iou(good.astype(np.uint8), good)
    with pytest.raises(DataError, match="boolean reference masks"):
        boundary_iou(good, good[None])
    with pytest.raises(DataError, match="same shape"):
        mask_iou(good, good[:, :3])
    with pytest.raises(DataError, match="masks as a tensor or an array"):
        mask_iou([[True, False], [True]], good)
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        boundary_band(good, share=0)
    with pytest.raises(DataError, match="finite boxes"):
        fill_boxes([[0.0, 0.0, float("nan"), 1.0]], (3, 3))
