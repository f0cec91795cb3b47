from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from aerogel.errors import DataError
from aerogel.measure.masks import find_boxes
from aerogel.zoo.decode import PictureError
from aerogel.zoo.labelmaps import LabelMapRows, box_labels


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def grid(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .integers(0, 4, (height // 10, width // 10))
        .astype(np.uint8)
        .repeat(10, axis=0)
        .repeat(10, axis=1)
    )


def stored(content: bytes | None) -> dict[str, Any]:
    return {"bytes": content, "path": "x.png"}


def write(path: Path, rows: list[tuple[Any, Any]], **columns: list[Any]) -> Path:
    table = {"image": [row[0] for row in rows], "segments": [row[1] for row in rows], **columns}
    parquet.write_table(pa.table(table), path)
    return path


PHOTO = stored(png(np.full((40, 50, 3), 7, dtype=np.uint8)))


def test_one_map_or_several_opinions(tmp_path: Path) -> None:
    maps = [grid(0), grid(1)]
    path = write(
        tmp_path / "a.parquet", [(PHOTO, [stored(png(maps[0]))]), (PHOTO, [stored(png(m)) for m in maps])]
    )
    source = LabelMapRows(path)
    one, two = source.read(0), source.read(1)
    assert one.identifier == "a.parquet:0"
    assert one.image.shape == (40, 50, 3)
    assert one.objects == ("0:1", "0:2", "0:3")
    assert two.objects == ("0:1", "0:2", "0:3", "1:1", "1:2", "1:3")
    masks = two.masks()
    for mask, name in zip(masks, two.objects, strict=True):
        number, label = map(int, name.split(":"))
        assert np.array_equal(mask, maps[number] == label)
    assert np.array_equal(two.boxes, find_boxes(masks).numpy())
    assert np.array_equal(two.areas, masks.sum(axis=(1, 2)))
    assert two.points is None
    second = LabelMapRows(path, annotator=1)
    assert second.read(1).objects == ("1:1", "1:2", "1:3")
    with pytest.raises(PictureError, match="annotator 1"):
        second.read(0)


def test_a_single_map_without_a_list(tmp_path: Path) -> None:
    table = pa.table({"photo": [PHOTO["bytes"]], "mask": [png(grid(2))]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = LabelMapRows(tmp_path, image_column="photo").read(0)
    assert np.array_equal(found.masks().argmax(axis=0) + found.masks().any(axis=0), grid(2))


@pytest.mark.parametrize(
    ("image", "segments", "words"),
    [
        (stored(None), [stored(png(grid(0)))], "no picture stored"),
        (stored(b"no"), [stored(png(grid(0)))], "known format"),
        (PHOTO, [], "no label map stored"),
        (PHOTO, None, "no label map stored"),
        (PHOTO, [stored(None)], "no label map stored"),
        (PHOTO, [stored(b"no")], "lossless format"),
        (PHOTO, [stored(png(grid(0, 40, 60)))], "label map of 60x40 px for a photo of 50x40 px"),
    ],
)
def test_damaged_rows_say_what_is_wrong(tmp_path: Path, image: Any, segments: Any, words: str) -> None:
    path = write(tmp_path / "a.parquet", [(PHOTO, [stored(png(grid(0)))]), (image, segments)])
    with pytest.raises(PictureError, match=words):
        LabelMapRows(path).read(1)


def test_columns_that_are_not_clear_are_asked_for(tmp_path: Path) -> None:
    maps = [stored(png(grid(0)))]
    write(tmp_path / "a.parquet", [(PHOTO, maps)])
    with pytest.raises(DataError, match="did you mean 'segments'"):
        LabelMapRows(tmp_path, segments_column="segmets")
    two = pa.table({"image": [PHOTO], "left": [maps], "right": [maps]})
    parquet.write_table(two, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="pass segments_column="):
        LabelMapRows(tmp_path)
    assert LabelMapRows(tmp_path, segments_column="right").read(0).objects
    parquet.write_table(pa.table({"image": [PHOTO], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="0 candidates"):
        LabelMapRows(tmp_path)


def test_labels_have_tight_boxes() -> None:
    labels = np.zeros((6, 9), dtype=np.int32)
    labels[1, 2] = labels[4, 7] = 500
    labels[5, :3] = 3
    found, boxes, areas = box_labels(labels)
    assert found == [3, 500]
    assert boxes.tolist() == [[0, 5, 3, 6], [2, 1, 8, 5]]
    assert areas.tolist() == [3, 2]
    assert box_labels(np.zeros((3, 3), dtype=np.int32))[0] == []
