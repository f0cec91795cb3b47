from __future__ import annotations

import numpy as np

from aerogel.zoo.objects import LabelMasks, RunMasks, SegmentedPhoto
from tests.unit.zoo.runs import coder, encode

__all__ = ["coder"]  # a fixture


def photo() -> SegmentedPhoto:
    first = np.array([[1, 1, 0], [2, 2, 0]], dtype=np.int32)
    second = np.array([[0, 3, 3], [0, 3, 3]], dtype=np.int32)
    return SegmentedPhoto(
        "a",
        np.zeros((2, 3, 3), dtype=np.uint8),
        ("0:1", "0:2", "1:3"),
        np.array([[0.0, 0.0, 2.0, 1.0], [0.0, 1.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]]),
        np.array([2, 2, 4]),
        np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]),
        LabelMasks((first, second), ((0, 1), (0, 2), (1, 3))),
    )


def test_masks_of_all_or_some_objects() -> None:
    found = photo()
    assert (len(found), found.size) == (3, (2, 3))
    masks = found.masks()
    assert masks.dtype == bool
    assert masks.astype(int).tolist() == [
        [[1, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 1, 0]],
        [[0, 1, 1], [0, 1, 1]],
    ]
    assert np.array_equal(found.masks([2, 0]), masks[[2, 0]])
    assert found.masks([]).shape == (0, 2, 3)


def test_keeping_some_objects_keeps_what_belongs_to_them() -> None:
    whole = photo()
    some = whole.keep([2, 0])
    assert some.objects == ("1:3", "0:1")
    assert np.array_equal(some.masks(), whole.masks([2, 0]))
    assert np.array_equal(some.boxes, whole.boxes[[2, 0]])
    assert np.array_equal(some.areas, whole.areas[[2, 0]])
    assert some.points is not None and some.points.tolist() == [[2, 0], [0, 0]]
    assert some.keep([1]).objects == ("0:1",)
    assert np.array_equal(some.keep([1]).masks(), whole.masks([0]))
    assert len(whole.keep([])) == 0


def test_masks_of_runs(coder: object) -> None:
    masks = np.zeros((2, 4, 5), dtype=bool)
    masks[0, 1:3, 2:4] = masks[1, 0, :] = True
    found = RunMasks(tuple(encode(mask) for mask in masks), (4, 5))
    assert np.array_equal(found.read([0, 1]), masks)
    assert np.array_equal(found.read([1]), masks[1:])
    assert found.read([]).shape == (0, 4, 5)
