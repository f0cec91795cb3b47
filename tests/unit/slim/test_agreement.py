"""Objects named by a teacher: distinct, of a sensible size, and its student's best score is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.measure.masks import mask_iou
from aerogel.slim.agreement import find_objects, look_for_objects, measure_agreement
from aerogel.zoo.photos import Photo
from tests.unit.slim.stand_ins import rectangles, tiny_sam


def photos(count: int = 2) -> list[Photo]:
    return [Photo(f"photo:{seed}", rectangles(seed).image) for seed in range(count)]


def test_objects_are_distinct_and_carry_their_points_and_boxes() -> None:
    found = find_objects(tiny_sam(3), photos(4), grid=4, most=5)
    assert found
    for photo in found:
        masks = photo.masks()
        assert 1 <= len(photo) <= 5 and photo.points is not None and photo.points.shape == (len(photo), 2)
        shares = masks.mean((1, 2))
        assert (shares >= 0.002).all() and (shares <= 0.9).all()
        assert (photo.areas == masks.sum((1, 2))).all()
        for row in range(len(photo)):
            others = masks[row + 1 :]
            assert (mask_iou(others, np.broadcast_to(masks[row], others.shape)) <= 0.85).all()


def test_large_photos_are_judged_as_large_as_they_are_seen() -> None:
    large = Photo("large", np.tile(rectangles(1).image, (20, 10, 1)))
    height, width = large.image.shape[:2]
    assert height > width > 512
    (found,) = find_objects(tiny_sam(3), [large])
    assert found.image.shape[:2] == (512, round(512 * width / height))
    assert found.points is not None and (found.points < [found.image.shape[1], 512]).all()
    assert found.masks().shape == (len(found), *found.image.shape[:2])
    assert found.masks([0]).tolist() == found.masks()[:1].tolist()


def test_objects_are_looked_for_as_they_are_asked_for() -> None:
    seen = []

    def give() -> Iterator[Photo]:
        for photo in photos(4):
            seen.append(photo.identifier)
            yield photo

    found = look_for_objects(tiny_sam(3), give())
    assert next(found).identifier == seen[-1] and len(seen) < 4


def test_a_teacher_agrees_with_itself() -> None:
    teacher = tiny_sam(3)
    found = measure_agreement(teacher, teacher, photos(4))
    assert set(found.row("stored").iou) == {1.0}
    assert set(found.row("box", "teacher").iou) == {1.0}


def test_another_model_agrees_less() -> None:
    found = measure_agreement(tiny_sam(4), tiny_sam(3), photos(4))
    assert np.mean(found.row("stored", "teacher").iou) < 0.9


def test_nothing_found_is_an_error() -> None:
    blind = tiny_sam(3)
    for parameter in blind.mask_decoder.output_hypernetworks_mlps.parameters():
        parameter.data.zero_()
    with pytest.raises(DataError, match="finds something"):
        measure_agreement(blind, blind, photos())


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"most": 0}])
def test_empty_grids_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        find_objects(tiny_sam(3), photos(), **wrong)
