from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.zoo.decode import PictureError
from aerogel.zoo.segments import open_segments
from tests.unit.zoo.runs import coder
from tests.unit.zoo.test_coco import sa1b_object, save_photo, write_coco, write_sa1b
from tests.unit.zoo.test_labelmaps import PHOTO, grid, png, stored, write

__all__ = ["coder"]  # a fixture


def sizes() -> np.ndarray:
    """Draw objects of 1 (0.05 %), 100 (5 %) and 200 (10 %) of 2,000 pixels, and one that is nothing."""
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[0, 0] = 1
    labels[10:20, :10] = 2
    labels[20:30, :20] = 3
    return labels


def test_parquet_of_label_maps(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(PHOTO, [stored(png(grid(number)))]) for number in range(6)])
    photos = open_segments(tmp_path)
    assert photos.ids == tuple(f"a.parquet:{number}" for number in range(6))
    assert len(photos) == 6
    assert [photo.identifier for photo in photos] == list(photos.ids)
    assert photos[2].masks().shape == (3, 40, 50)
    sample = open_segments(tmp_path / "a.parquet", limit=2, seed=1)
    assert sample.ids == open_segments(tmp_path, limit=2, seed=1).ids
    with pytest.raises(DataError, match=r"7 usable photos with masks in .*got 6"):
        open_segments(tmp_path, limit=7)


def test_small_objects_are_left_out_by_their_share(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [(PHOTO, [stored(png(sizes()))])])
    assert open_segments(tmp_path)[0].objects == ("0:1", "0:2", "0:3")
    assert open_segments(tmp_path, smallest_share=0.001)[0].objects == ("0:2", "0:3")
    exactly = open_segments(tmp_path, smallest_share=0.1)[0]
    assert exactly.objects == ("0:3",)
    assert np.array_equal(exactly.masks()[0], sizes() == 3)
    with pytest.raises(DataError, match="no object of at least 20 % of the photo"):
        open_segments(tmp_path, smallest_share=0.2)


def test_photos_without_usable_masks_are_left_out_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [stored(png(grid(0)))]
    empty = [stored(png(np.zeros((40, 50), dtype=np.uint8)))]
    write(
        tmp_path / "a.parquet",
        [(PHOTO, good), (PHOTO, empty), (PHOTO, [stored(b"no")]), (stored(None), good)],
    )
    photos = open_segments(tmp_path)
    assert photos.ids == ("a.parquet:0",)
    assert [each.reason.split(" (")[0] for each in photos.skipped] == [
        "no objects",
        "not a label map in a lossless format",
        "no picture stored",
    ]
    assert "a.parquet:1: no objects" in capsys.readouterr().err


@pytest.mark.usefixtures("coder")
def test_sa1b_and_coco_by_path(tmp_path: Path) -> None:
    root = tmp_path / "sa"
    write_sa1b(root, "sa_1", [sa1b_object(1, 0, 0)])
    write_sa1b(root, "sa_2", [])
    save_photo(root / "sa_3.jpg")
    photos = open_segments(root)
    assert photos.ids == ("sa_1.jpg",)
    assert {each.identifier for each in photos.skipped} == {"sa_2.jpg", "sa_3.jpg"}
    write_sa1b(tmp_path / "photos", "sa_1", [sa1b_object(1, 0, 0)], tmp_path / "texts")
    assert open_segments(tmp_path / "texts", images=tmp_path / "photos").ids == ("sa_1.jpg",)
    save_photo(tmp_path / "coco" / "a.jpg")
    instances = write_coco(tmp_path / "instances.json")
    photos = open_segments(instances, images=tmp_path / "coco")
    assert photos.ids == ("a.jpg",)
    assert photos[0].objects == ("1", "3")
    with pytest.raises(DataError, match="pass images="):
        open_segments(instances)
    with pytest.raises(DataError, match="a folder of photos as images"):
        open_segments(instances, images=tmp_path / "nowhere")


@pytest.mark.usefixtures("coder")
def test_a_photo_that_is_damaged_later_is_named(tmp_path: Path) -> None:
    write_sa1b(tmp_path, "sa_1", [sa1b_object(1, 0, 0)])
    photos = open_segments(tmp_path)
    (tmp_path / "sa_1.jpg").write_bytes(b"")
    with pytest.raises(PictureError, match=r"sa_1.jpg: "):
        photos[0]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", save_photo(tmp_path / "a.png")):
        with pytest.raises(DataError, match="a folder of SA-1B"):
            open_segments(path)
    with pytest.raises(ConfigError, match="smallest_share"):
        open_segments(tmp_path, smallest_share=1.0)
    with pytest.raises(ConfigError, match="annotator"):
        open_segments(tmp_path, annotator=-1)
