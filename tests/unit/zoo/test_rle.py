from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from aerogel.errors import MissingDependencyError
from aerogel.zoo.decode import PictureError
from aerogel.zoo.rle import box_runs, corners, count_pixels, decode_runs, import_coder, read_runs
from tests.unit.zoo.runs import Coder, coder, count_runs, encode

__all__ = ["coder"]  # a fixture
SIZE = (37, 53)


def blobs(count: int = 6) -> np.ndarray:
    generator = np.random.default_rng(0)
    masks = np.zeros((count, *SIZE), dtype=bool)
    for mask in masks:
        for _ in range(4):
            top, left = int(generator.integers(0, 30)), int(generator.integers(0, 45))
            mask[
                top : top + int(generator.integers(1, 20)), left : left + int(generator.integers(1, 30))
            ] ^= True
    masks[-1] = generator.random(SIZE) < 0.5
    masks[-2] = True
    return masks


@pytest.mark.parametrize("form", ["bytes", "text", "list"])
def test_runs_give_the_masks_back(coder: Any, form: str) -> None:
    masks = blobs()
    runs = []
    for mask in masks:
        stored: dict[str, Any] = encode(mask)
        if form == "text":
            stored["counts"] = stored["counts"].decode()
        elif form == "list":
            stored["counts"] = count_runs(mask)
        runs.append(read_runs(stored, SIZE))
    assert np.array_equal(decode_runs(runs, SIZE), masks)
    assert count_pixels(runs).tolist() == masks.sum(axis=(1, 2)).tolist()
    for box, mask in zip(box_runs(runs), masks, strict=True):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_polygons_are_filled_and_joined(coder: Any) -> None:
    polygons = [[2, 3, 10, 3, 10, 8, 2, 8], [20.0, 1.0, 25.0, 1.0, 25.0, 30.0, 20.0, 30.0]]
    (mask,) = decode_runs([read_runs(polygons, SIZE)], SIZE)
    expected = np.zeros(SIZE, dtype=bool)
    expected[3:8, 2:10] = expected[1:30, 20:25] = True
    assert np.array_equal(mask, expected)


def test_corners_come_from_width_and_height() -> None:
    assert corners(np.array([[1.0, 2.0, 10.0, 20.0], [0.5, 0.0, 0.0, 3.25]])).tolist() == [
        [1.0, 2.0, 11.0, 22.0],
        [0.5, 0.0, 0.5, 3.25],
    ]


def test_no_masks_at_all() -> None:
    assert decode_runs([], SIZE).shape == (0, *SIZE)
    assert count_pixels([]).shape == (0,)
    assert box_runs([]).shape == (0, 4)


GOOD = encode(blobs()[0])["counts"]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "neither polygons nor runs"),
        ({"counts": GOOD}, "neither polygons nor runs"),
        ({"size": [53, 37], "counts": GOOD}, r"size \[53, 37\]"),
        ({"size": [37, 53], "counts": GOOD[:-1] + b"o"}, "break off"),
        ({"size": [37, 53], "counts": GOOD[:-2]}, "of 1,961 pixels|break off"),
        ({"size": [37, 53], "counts": GOOD + b"1"}, "of 1,961 pixels"),
        ({"size": [37, 53], "counts": b""}, "fill 0 of"),
        ({"size": [37, 53], "counts": "é" * 4}, "damaged counts"),
        ({"size": [37, 53], "counts": b"M"}, "zero or more"),
        ({"size": [37, 53], "counts": 7}, "counts of a mask as int"),
        ({"size": [37, 53], "counts": [10, 20]}, "fill 30 of"),
        ({"size": [37, 53], "counts": [10, -20, 1971]}, "zero or more"),
        ({"size": [37, 53], "counts": [0.5, 1960.5]}, "zero or more"),
        ([], "without polygons"),
        ([[]], "a polygon"),
        ([[1, 2, 3, 4]], "a polygon"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon"),
    ],
)
def test_damaged_masks_never_reach_the_coder(coder: Any, segmentation: Any, words: str) -> None:
    with pytest.raises(PictureError, match=words):
        read_runs(segmentation, SIZE)


def test_a_missing_coder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[slim\]"):
        import_coder()


def test_the_slow_coder_agrees_with_the_real_one() -> None:
    real = pytest.importorskip("pycocotools.mask")
    slow = Coder()
    masks = blobs()
    packed = [real.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert [each["counts"] for each in packed] == [encode(mask)["counts"] for mask in masks]
    assert np.array_equal(decode_runs(packed, SIZE), np.moveaxis(slow.decode(packed), 2, 0))
    assert np.array_equal(real.area(packed), slow.area(packed))
    assert np.array_equal(real.toBbox(packed), slow.toBbox(packed))
