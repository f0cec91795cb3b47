from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aerogel.errors import DataError, MissingDependencyError
from aerogel.zoo.coco import NO_ANNOTATIONS, NO_PHOTO, TWICE, CocoInstances, Sa1bFolder, build_photo
from aerogel.zoo.decode import PictureError
from tests.unit.zoo.runs import coder, count_runs, encode

__all__ = ["coder"]  # a fixture
pytestmark = pytest.mark.usefixtures("coder")
HEIGHT, WIDTH = 40, 60


def mask(top: int, left: int, tall: int = 10, wide: int = 20) -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), dtype=bool)
    found[top : top + tall, left : left + wide] = True
    return found


def save_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(path)
    return path


def runs(each: np.ndarray) -> dict[str, Any]:
    found = encode(each)
    return {"size": found["size"], "counts": found["counts"].decode()}


def sa1b_object(number: int, top: int, left: int) -> dict[str, Any]:
    return {
        "id": number,
        "segmentation": runs(mask(top, left)),
        "bbox": [left, top, 19, 9],
        "area": 200,
        "point_coords": [[left + 3.5, top + 2.0]],
    }


def write_sa1b(root: Path, name: str, objects: list[Any], annotations: Path | None = None) -> None:
    save_photo(root / f"{name}.jpg")
    text = (annotations or root) / f"{name}.json"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(json.dumps({"image": {"image_id": 1}, "annotations": objects}))


def test_sa1b_pairs_by_name_and_turns_boxes_to_corners(tmp_path: Path) -> None:
    write_sa1b(tmp_path, "part/sa_10", [sa1b_object(7, 5, 10), sa1b_object(8, 20, 30)])
    write_sa1b(tmp_path, "part/sa_2", [sa1b_object(9, 0, 0)])
    save_photo(tmp_path / "sa_3.jpg")
    (tmp_path / "sa_1.json").write_text("{}")
    (tmp_path / "readme.txt").write_text("")
    save_photo(tmp_path / "part" / "sa_2.png")
    source = Sa1bFolder(tmp_path)
    assert source.identifiers == ("part/sa_10.jpg", "part/sa_2.jpg")
    reasons = {each.identifier: each.reason for each in source.skipped}
    assert reasons == {
        "sa_3.jpg": NO_ANNOTATIONS,
        "sa_1.json": NO_PHOTO,
        "readme.txt": "not a picture",
        "part/sa_2.png": TWICE,
    }
    photo = source.read(0)
    assert photo.objects == ("7", "8")
    assert photo.boxes.tolist() == [[10, 5, 29, 14], [30, 20, 49, 29]]
    assert photo.points is not None and photo.points.tolist() == [[13.5, 7], [33.5, 22]]
    assert np.array_equal(photo.masks(), [mask(5, 10), mask(20, 30)])
    assert photo.areas.tolist() == [200, 200]
    assert photo.image.shape == (HEIGHT, WIDTH, 3)


def test_sa1b_with_annotations_elsewhere(tmp_path: Path) -> None:
    write_sa1b(tmp_path / "photos", "a/sa_1", [sa1b_object(1, 0, 0)], tmp_path / "texts")
    source = Sa1bFolder(tmp_path / "photos", tmp_path / "texts")
    assert source.identifiers == ("a/sa_1.jpg",)
    assert source.skipped == ()
    assert len(source.read(0)) == 1


def test_damaged_sa1b_annotations_are_the_photo_s_problem(tmp_path: Path) -> None:
    write_sa1b(tmp_path, "sa_1", [])
    for text, words in (("{", "no JSON"), ("[]", "list of annotations"), ('{"annotations": 3}', "list of")):
        (tmp_path / "sa_1.json").write_text(text)
        with pytest.raises(PictureError, match=words):
            Sa1bFolder(tmp_path).read(0)


def write_coco(path: Path, **changes: Any) -> Path:
    data = {
        "images": [
            {"id": 2, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "gone.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": [4.0, 5.0, 20.0, 10.0], "segmentation": [rectangle(5, 4)]},
            {"id": 2, "image_id": 2, "segmentation": runs(mask(1, 2)), "iscrowd": 0},
            {"id": 3, "image_id": 1, "segmentation": listed(mask(0, 0)), "bbox": [0, 0, 20, 10]},
            {"id": 4, "image_id": 1, "segmentation": listed(mask(0, 0, 40, 60)), "iscrowd": 1},
        ],
    }
    path.write_text(json.dumps(data | changes))
    return path


def rectangle(top: int, left: int) -> list[float]:
    return [left, top, left + 20, top, left + 20, top + 10, left, top + 10]


def listed(each: np.ndarray) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": count_runs(each)}


def test_coco_polygons_and_runs_of_both_kinds(tmp_path: Path) -> None:
    for name in ("a", "b", "unknown"):
        save_photo(tmp_path / "images" / f"{name}.jpg")
    source = CocoInstances(write_coco(tmp_path / "instances.json"), tmp_path / "images")
    assert source.identifiers == ("a.jpg", "b.jpg")
    assert {each.identifier: each.reason for each in source.skipped} == {
        "gone.jpg": NO_PHOTO,
        "unknown.jpg": NO_ANNOTATIONS,
    }
    first, second = source.read(0), source.read(1)
    assert first.objects == ("1", "3")
    assert np.array_equal(first.masks(), [mask(5, 4), mask(0, 0)])
    assert first.boxes.tolist() == [[4, 5, 24, 15], [0, 0, 20, 10]]
    assert first.points is None
    assert np.array_equal(second.masks(), [mask(1, 2)])
    assert second.boxes.tolist() == [[2, 1, 22, 11]]


def test_a_photo_of_another_size_than_its_objects_is_refused(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "a.jpg")
    images = [{"id": 1, "file_name": "a.jpg", "height": 2 * HEIGHT, "width": 2 * WIDTH}]
    source = CocoInstances(write_coco(tmp_path / "instances.json", images=images), tmp_path / "images")
    told = f"annotated at {2 * WIDTH}x{2 * HEIGHT} px, the photo is {WIDTH}x{HEIGHT} px"
    with pytest.raises(PictureError, match=told):
        source.read(0)


@pytest.mark.parametrize(
    "changes", [{"images": None}, {"annotations": [{}]}, {"images": [{"id": 1}]}, {"annotations": "x"}]
)
def test_files_that_are_no_instances_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="COCO instances in"):
        CocoInstances(write_coco(tmp_path / "instances.json", **changes), tmp_path)
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(DataError, match="JSON in"):
        CocoInstances(tmp_path / "instances.json", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmentation": None}, "object 5: a mask that is neither"),
        ({"segmentation": {"size": [60, 40], "counts": "1"}}, "object 5: a mask of size"),
        ({"bbox": [1, 2, 3]}, "object 5: the box"),
        ({"bbox": [1, 2, -3, 4]}, "object 5: the box"),
        ({"bbox": [1, 2, float("inf"), 4]}, "object 5: the box"),
        ({"point_coords": [[1]]}, "object 5: the points"),
        ({"point_coords": "12"}, "object 5: the points"),
    ],
)
def test_a_damaged_object_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = save_photo(tmp_path / "a.png")
    with pytest.raises(PictureError, match=words):
        build_photo("a", file, [sa1b_object(4, 0, 0), sa1b_object(5, 3, 3) | change])
    with pytest.raises(PictureError, match="object 1: not a JSON object"):
        build_photo("a", file, [sa1b_object(4, 0, 0), 3])


def test_ids_are_unique_and_points_are_for_all_or_none(tmp_path: Path) -> None:
    file = save_photo(tmp_path / "a.png")
    twice = [sa1b_object(4, 0, 0), sa1b_object(4, 3, 3)]
    assert build_photo("a", file, twice).objects == ("0", "1")
    del twice[0]["point_coords"]
    assert build_photo("a", file, twice).points is None
    assert len(build_photo("a", file, [])) == 0


def test_a_missing_coder_is_said_before_any_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aerogel.zoo.coco.import_coder", refuse)
    with pytest.raises(MissingDependencyError):
        Sa1bFolder(tmp_path)
    with pytest.raises(MissingDependencyError):
        CocoInstances(tmp_path / "missing.json", tmp_path)


def refuse() -> None:
    raise MissingDependencyError("pycocotools")
