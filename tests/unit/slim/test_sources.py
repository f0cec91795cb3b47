"""Sources are split at random but for the seed, known by their content, and the teacher stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from aerogel.errors import DataError
from aerogel.slim.sources import Sources, fingerprint_photos
from aerogel.zoo.photos import open_photos
from tests.unit.slim import tiny
from tests.unit.slim.runs import snapshot, teacher, write_photos


def split(photos: Path, held_out: int = 2, seed: int = 0) -> Sources:
    return Sources.split(teacher(), open_photos(photos), held_out, seed)


def test_no_photo_is_in_both_parts_and_none_is_lost(photos: Path) -> None:
    found = split(photos)
    assert len(found.photos) == 4 and len(found.held_out) == 2
    assert sorted((*found.photos.ids, *found.held_out.ids)) == [f"{number}.png" for number in range(6)]
    assert list(found.photos.ids) == sorted(found.photos.ids)
    assert split(photos).held_out.ids == found.held_out.ids
    assert len({split(photos, seed=seed).held_out.ids for seed in range(5)}) > 1


@pytest.mark.parametrize("held_out", [6, 7])
def test_one_photo_must_be_left_to_learn_from(photos: Path, held_out: int) -> None:
    with pytest.raises(DataError, match=f"more than {held_out} photos.*got 6 in .*held_out"):
        split(photos, held_out)
    assert len(split(photos, 5).photos) == 1


def test_a_model_of_no_family_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match="known family"):
        Sources.split(torch.nn.Linear(1, 1), open_photos(photos), 2, 0)


def test_a_photo_that_is_there_twice_is_refused(photos: Path) -> None:
    found = open_photos(photos)
    doubled = replace(found, numbers=(*found.numbers, 2, 3, 2))
    with pytest.raises(DataError, match=r"ids of their own; got 2\.png twice, and 1 others"):
        Sources.split(teacher(), doubled, 2, 0)


def test_photos_are_known_by_their_names_and_content(photos: Path, tmp_path: Path) -> None:
    ours = fingerprint_photos(open_photos(photos))
    copied = write_photos(tmp_path / "elsewhere")
    assert fingerprint_photos(open_photos(copied)) == ours
    (copied / "0.png").unlink()
    (copied / "0.png").symlink_to(photos / "0.png")
    assert fingerprint_photos(open_photos(copied)) == ours
    (copied / "3.png").rename(copied / "8.png")
    renamed = fingerprint_photos(open_photos(copied))
    (copied / "8.png").write_bytes((copied / "8.png").read_bytes() + b"\0")
    larger = fingerprint_photos(open_photos(copied))
    Image.new("RGB", (64, 64), "red").save(copied / "0.bmp")
    red = fingerprint_photos(open_photos(copied))
    size = (copied / "0.bmp").stat().st_size
    Image.new("RGB", (64, 64), "blue").save(copied / "0.bmp")
    assert (copied / "0.bmp").stat().st_size == size
    blue = fingerprint_photos(open_photos(copied))
    assert len({ours, renamed, larger, red, blue}) == 5


def test_digests_tell_teachers_and_parts_apart(photos: Path) -> None:
    one, other = split(photos), split(photos, seed=3)
    assert one.digests["teacher"] == other.digests["teacher"]
    assert one.digests["photos"] != one.digests["held_out"]
    changed = replace(one, teacher=teacher())
    with torch.no_grad():
        next(changed.teacher.parameters()).add_(1.0)
    assert changed.digests["teacher"] != one.digests["teacher"]


def test_images_are_drawn_for_ranking_in_the_same_order_again(photos: Path) -> None:
    found = split(photos)
    images = list(found.draw_images(3, 0, "cpu"))
    assert [list(each.shape) for each in images] == [[1, 3, 64, 64]] * 3
    assert all(
        torch.equal(one, other) for one, other in zip(images, found.draw_images(3, 0, "cpu"), strict=True)
    )
    assert len(list(found.draw_images(99, 0, "cpu"))) == 4


def test_a_teacher_in_half_precision_is_copied_and_stays_so(photos: Path) -> None:
    model = tiny.build(dtype=torch.float16)
    before = snapshot(model)
    found = Sources.split(model, open_photos(photos), 2, 0)
    placed = found.place_teacher("cpu")
    assert {each.dtype for each in placed.parameters()} == {torch.float32}
    assert snapshot(model) == before and found.stored_dtype == torch.float16
    assert replace(found, dtype=torch.bfloat16).stored_dtype == torch.bfloat16


def test_a_teacher_that_can_be_used_is_used_as_it_is(photos: Path) -> None:
    found = split(photos)
    assert found.place_teacher("cpu") is found.teacher
    assert found.channels.family == "sam" and found.canvas.size_px == 64
