"""Masks before and after, drawn for the same points, and the encoders' time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from aerogel.measure import Measurement
from aerogel.slim.agreement import find_objects
from aerogel.slim.api import Slimmed
from aerogel.slim.exhibits import SIDES, draw_masks, time_encoder, write_exhibits
from aerogel.zoo.photos import open_photos
from tests.unit.slim.runs import teacher
from tests.unit.slim.stand_ins import Oracle, one_mask


def test_pictures_of_both_sides_and_times_are_written(
    finished: Slimmed, tmp_path: Path, photos: Path
) -> None:
    facts = write_exhibits(finished.model, teacher(), open_photos(photos), tmp_path)
    assert facts["pictures"] and len(facts["pictures"]) <= 6
    for each in facts["pictures"]:
        assert (photos / each["photo"]).is_file()
        pictures = [Image.open(io.BytesIO((tmp_path / each[side]).read_bytes())) for side in SIDES]
        assert pictures[0].size == pictures[1].size and {each.format for each in pictures} == {"JPEG"}
    assert any(
        (tmp_path / each["before"]).read_bytes() != (tmp_path / each["after"]).read_bytes()
        for each in facts["pictures"]
    )
    for side in SIDES:
        latency = Measurement.from_dict(facts["latency"][side])
        assert latency.value > 0 and latency.unit == "ms"


def test_an_encoder_alone_is_only_timed(tmp_path: Path) -> None:
    facts = write_exhibits(teacher().vision_encoder, teacher().vision_encoder, [], tmp_path)
    assert facts["pictures"] == [] and set(facts["latency"]) == set(SIDES)
    assert not list(tmp_path.iterdir())


def test_colour_lies_where_the_masks_and_points_are(photos: Path) -> None:
    model = teacher()
    (photo, *_) = find_objects(model, open_photos(photos), grid=4, most=2)
    drawn = draw_masks(photo, model)
    assert drawn.shape == photo.image.shape and drawn.dtype == np.uint8
    changed = (drawn != photo.image).any(-1)
    covered = photo.masks().any(0)
    assert photo.points is not None
    rows, columns = np.indices(covered.shape)
    near = np.zeros_like(covered)
    for x, y in photo.points:
        near |= (rows - y) ** 2 + (columns - x) ** 2 <= 4.0**2
    assert not (changed & ~covered & ~near).any()
    assert changed[covered].mean() > 0.9


def test_a_small_mask_lies_on_a_large_one_in_a_colour_of_its_own() -> None:
    points = np.array([[40.0, 40.0], [12.0, 12.0]])

    def answer(_: str, point: np.ndarray) -> np.ndarray:
        side = 64 if point[0] > 32 else 24
        return np.ones((side, side), dtype=bool)

    photo = replace(one_mask(np.ones((64, 64), dtype=bool)), points=points)
    drawn = draw_masks(photo, Oracle(answer))
    turned = draw_masks(replace(photo, points=points[::-1]), Oracle(answer))
    inside, outside = drawn[18, 18], drawn[50, 30]
    assert (
        (inside != outside).any() and (turned[50, 30] == inside).all() and (turned[18, 18] == outside).all()
    )
    assert (drawn[23, 5] != inside).any() and (drawn[63, 30] != outside).any(), "borders have a line"


def test_timing_gives_each_module_its_mode_back() -> None:
    model = teacher().train()
    model.mask_decoder.eval()
    modes = [module.training for module in model.modules()]
    time_encoder(model)
    assert [module.training for module in model.modules()] == modes
    assert all(each.grad is None for each in model.parameters())
