"""Photos whose masks are in JSON: one file for each photo, as in SA-1B, or one for all, as in COCO."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerogel.errors import DataError, compose
from aerogel.zoo.decode import PictureError
from aerogel.zoo.imagefolder import JUNK
from aerogel.zoo.objects import RunMasks, SegmentedPhoto
from aerogel.zoo.photos import check_photo, decode_photo, find_photos
from aerogel.zoo.rle import box_runs, corners, count_pixels, import_coder, read_runs
from aerogel.zoo.selection import Skipped

NO_ANNOTATIONS = "no annotations of that name"
NO_PHOTO = "no photo of that name"
TWICE = "another photo of that name was taken"


class Sa1bFolder:
    """A folder in the layout of SA-1B: `sa_1.jpg` beside `sa_1.json`, paired by name, never by order.

    The JSON files may lie in a folder of their own with the same sub-folders.
    """

    def __init__(self, images: Path, annotations: Path | None = None) -> None:
        """List and pair the files.

        Raises:
            MissingDependencyError: pycocotools is not installed.
        """
        import_coder()
        found = find_photos(images)
        root = images if annotations is None else annotations
        photos: dict[str, Path] = {}
        doubles = []
        for file in found.files:
            inside = file.relative_to(images)
            if photos.setdefault(inside.with_suffix("").as_posix(), file) is not file:
                doubles.append(Skipped(inside.as_posix(), TWICE))
        texts = {file.relative_to(root).with_suffix("").as_posix(): file for file in find_json(root)}
        names = sorted(photos.keys() & texts.keys())
        self._pairs = [(photos[name], texts[name]) for name in names]
        self.identifiers = tuple(photos[name].relative_to(images).as_posix() for name in names)
        alone = [
            Skipped(file.relative_to(images).as_posix(), NO_ANNOTATIONS)
            for name, file in photos.items()
            if name not in texts
        ]
        lost = [
            Skipped(file.relative_to(root).as_posix(), NO_PHOTO)
            for name, file in texts.items()
            if name not in photos
        ]
        others = [each for each in found.skipped if not each.identifier.endswith(".json")]
        self.skipped = (*alone, *lost, *doubles, *others)

    def read(self, number: int) -> SegmentedPhoto:
        """Read one photo with its objects; SA-1B gives each a point.

        Raises:
            PictureError: a damaged photo or file of annotations.
        """
        photo, text = self._pairs[number]
        try:
            data = _load_json(text)
        except DataError as error:
            raise PictureError(f"annotations that are no JSON ({error.__cause__})") from error
        objects = data.get("annotations") if isinstance(data, dict) else None
        if not isinstance(objects, list):
            raise PictureError("a JSON file without a list of annotations")
        return build_photo(self.identifiers[number], photo, objects, _read_size(data.get("image")))


class CocoInstances:
    """A file of COCO's instance annotations, and the folder of its photos. Crowds are left out."""

    def __init__(self, annotations: Path, images: Path) -> None:
        """Read the file and find the photos.

        Raises:
            DataError: no JSON, or not that of COCO instances.
            MissingDependencyError: pycocotools is not installed.
        """
        import_coder()
        data = _load_json(annotations)
        entries = data.get("images") if isinstance(data, dict) else None
        objects = data.get("annotations") if isinstance(data, dict) else None
        if not (_all_hold(entries, ("id", "file_name")) and _all_hold(objects, ("image_id",))):
            expected = (
                f"COCO instances in {annotations}: lists of images (id, file_name) and annotations (image_id)"
            )
            raise DataError(compose(expected, "something else", "pass the instances_*.json of the data set"))
        self._objects: dict[Any, list[Any]] = defaultdict(list)
        for each in objects or []:
            if not each.get("iscrowd"):
                self._objects[each["image_id"]].append(each)
        found = find_photos(images)
        known = dict(zip(found.identifiers, found.files, strict=True))
        rows = sorted((str(each["file_name"]), each["id"]) for each in entries or [])
        self._sizes = {each["id"]: _read_size(each) for each in entries or []}
        self._rows = [(known[name], key) for name, key in rows if name in known]
        self.identifiers = tuple(name for name, _ in rows if name in known)
        named = {name for name, _ in rows}
        self.skipped = (
            *(Skipped(name, NO_PHOTO) for name, _ in rows if name not in known),
            *(Skipped(name, NO_ANNOTATIONS) for name in found.identifiers if name not in named),
        )

    def read(self, number: int) -> SegmentedPhoto:
        """Read one photo with its objects.

        Raises:
            PictureError: a damaged photo or object.
        """
        file, key = self._rows[number]
        return build_photo(self.identifiers[number], file, self._objects.get(key, []), self._sizes[key])


def build_photo(
    identifier: str, file: Path, objects: Sequence[Any], annotated: tuple[int, int] | None = None
) -> SegmentedPhoto:
    """Decode a photo and check its objects' masks, boxes (x, y, width, height) and points.

    Boxes that are not given are taken from the masks. Points are kept where every object has one.
    ``annotated`` is the (height, width) that the objects were outlined in, where that is known.

    Raises:
        PictureError: a damaged photo, or one of another size than ``annotated``; or an object with a damaged
            mask, box or point; it names the object.
    """
    check_photo(file, 1)
    image = decode_photo(file)
    size = (image.shape[0], image.shape[1])
    if annotated is not None and annotated != size:
        raise PictureError(
            f"annotated at {annotated[1]}x{annotated[0]} px, the photo is {size[1]}x{size[0]} px"
        )
    runs, boxes, points = [], [], []
    for place, each in enumerate(objects):
        try:
            if not isinstance(each, dict):
                raise PictureError("not a JSON object")
            runs.append(read_runs(each.get("segmentation"), size))
            boxes.append(_read_box(each["bbox"]) if "bbox" in each else box_runs(runs[-1:])[0])
            points.append(_read_point(each["point_coords"]) if each.get("point_coords") else None)
        except PictureError as error:
            name = each.get("id", place) if isinstance(each, dict) else place
            raise PictureError(f"object {name}: {error}") from error
    names = [str(each.get("id", place)) for place, each in enumerate(objects)]
    given = [point for point in points if point is not None]
    return SegmentedPhoto(
        identifier,
        image,
        tuple(names if len(set(names)) == len(names) else map(str, range(len(names)))),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        count_pixels(runs),
        np.array(given, dtype=np.float64) if given and len(given) == len(points) else None,
        RunMasks(tuple(runs), size),
    )


def find_json(root: Path) -> list[Path]:
    """List the JSON files of a folder and its sub-folders, sorted, without hidden ones."""
    inside = (file.relative_to(root) for file in root.rglob("*.json"))
    return sorted(
        root / f for f in inside if f.name not in JUNK and not any(part.startswith(".") for part in f.parts)
    )


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(compose(f"JSON in {file}", str(error), "fetch the file again")) from error


def _all_hold(listed: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(listed, list) and all(
        isinstance(each, dict) and each.keys() >= set(keys) for each in listed
    )


def _read_size(entry: Any) -> tuple[int, int] | None:
    """Return the (height, width) that an image's entry gives; None where it gives none."""
    height, width = (entry.get("height"), entry.get("width")) if isinstance(entry, dict) else (None, None)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _read_box(box: Any) -> NDArray[np.float64]:
    if not (_are_numbers(box, 4) and box[2] >= 0 and box[3] >= 0):
        raise PictureError(f"the box {box!r}, not x, y, width and height")
    return corners(np.array([box], dtype=np.float64)).reshape(4)


def _read_point(points: Any) -> list[float]:
    if not (isinstance(points, list) and _are_numbers(points[0], 2)):
        raise PictureError(f"the points {points!r}, not a list of x, y")
    return [float(each) for each in points[0]]


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(each, (int, float)) and isfinite(each) for each in values)
    )
