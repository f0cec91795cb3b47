"""Photos with label maps in parquet: a column of pictures and one of maps, one or several for each photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerogel.core.config import nearest
from aerogel.errors import DataError, compose
from aerogel.zoo.decode import PictureError, decode_labels
from aerogel.zoo.objects import LabelMasks, SegmentedPhoto
from aerogel.zoo.parquet import describe, holds_images
from aerogel.zoo.photos import check_photo, decode_photo
from aerogel.zoo.rows import ParquetRows
from aerogel.zoo.selection import Skipped

SEGMENT_NAMES = ("segments", "segmentation", "mask", "masks", "label_map", "panoptic")
UNLABELLED = 0
"""Pixels of this label belong to no object."""


class LabelMapRows:
    """Rows of parquet with a picture and its label maps, lossless pictures of one number a pixel.

    Several maps for one photo are several opinions about it: each pair of a map and a label is an object,
    "map:label". ``annotator`` takes one of the maps only.
    """

    def __init__(
        self,
        path: Path,
        *,
        image_column: str | None = None,
        segments_column: str | None = None,
        annotator: int | None = None,
    ) -> None:
        """Open the files and find the columns.

        Raises:
            DataError: damaged files, or columns that are not clear.
            MissingDependencyError: pyarrow is not installed.
        """
        self._rows = ParquetRows(
            path, lambda file, schema: _choose(file, schema, image_column, segments_column)
        )
        self._annotator = annotator
        self.identifiers = self._rows.identifiers
        self.skipped: tuple[Skipped, ...] = ()

    def read(self, number: int) -> SegmentedPhoto:
        """Read one photo with its objects.

        Raises:
            PictureError: a damaged picture or map, a map of another size, or no such annotator.
        """
        row = self._rows.read(number)
        picture, stored = (row[column] for column in self._rows.columns)
        content = _content(picture)
        check_photo(content, 1)
        image = decode_photo(content)
        maps = self._read_maps(stored, image.shape[:2])
        labels: list[tuple[int, int]] = []
        names: list[str] = []
        boxes: list[NDArray[np.float64]] = []
        areas: list[NDArray[np.int64]] = []
        for place, (number_of_map, each) in enumerate(maps):
            found, box, area = box_labels(each)
            labels += [(place, label) for label in found]
            names += [f"{number_of_map}:{label}" for label in found]
            boxes.append(box)
            areas.append(area)
        return SegmentedPhoto(
            self.identifiers[number],
            image,
            tuple(names),
            np.concatenate(boxes),
            np.concatenate(areas),
            None,
            LabelMasks(tuple(each for _, each in maps), tuple(labels)),
        )

    def _read_maps(self, stored: Any, size: tuple[int, ...]) -> list[tuple[int, NDArray[np.int32]]]:
        listed = list(enumerate(stored if isinstance(stored, list) else [stored]))
        if self._annotator is not None:
            listed = listed[self._annotator : self._annotator + 1]
            if not listed:
                raise PictureError(f"no label map of annotator {self._annotator}")
        if not listed:
            raise PictureError("no label map stored")
        maps = []
        for number, each in listed:
            content = _content(each)
            if content is None:
                raise PictureError("no label map stored")
            labels = decode_labels(content)
            if labels.shape != size:
                got = f"{labels.shape[1]}x{labels.shape[0]} px"
                raise PictureError(f"a label map of {got} for a photo of {size[1]}x{size[0]} px")
            maps.append((number, labels))
        return maps


def box_labels(
    labels: NDArray[np.int32],
) -> tuple[list[int], NDArray[np.float64], NDArray[np.int64]]:
    """List the labels of a map [H, W] but 0, ascending, with tight boxes [N, 4] and pixel counts [N]."""
    found, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    places = places.reshape(labels.shape)
    boxes = np.empty((len(found), 4))
    height, width = labels.shape
    for column, axis, length in ((0, np.arange(width), width), (1, np.arange(height)[:, None], height)):
        pixels = np.bincount((places * length + axis).ravel(), minlength=len(found) * length)
        touched = pixels.reshape(len(found), length) > 0
        boxes[:, column] = touched.argmax(axis=1)
        boxes[:, column + 2] = length - touched[:, ::-1].argmax(axis=1)
    real = found != UNLABELLED
    return found[real].tolist(), boxes[real], counts[real].astype(np.int64)


def _choose(file: Path, schema: Any, image_column: str | None, segments_column: str | None) -> list[str]:
    import pyarrow as pa

    def holds_maps(kind: Any) -> bool:
        many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return holds_images(kind.value_type if many else kind)

    image = describe(file, schema).choose_image(image_column)
    candidates = [field.name for field in schema if field.name != image and holds_maps(field.type)]
    if segments_column is not None:
        if segments_column in candidates:
            return [image, segments_column]
        near = nearest(segments_column, candidates)
        hint = f"did you mean {near!r}?" if near else "pass segments_column= with one of them"
        got = f"the columns {', '.join(schema.names)}"
        raise DataError(compose(f"a column {segments_column!r} of label maps in {file}", got, hint))
    usual = [name for name in SEGMENT_NAMES if name in candidates]
    if usual or len(candidates) == 1:
        return [image, (usual or candidates)[0]]
    got = f"{len(candidates)} candidates among the columns {', '.join(schema.names)}"
    raise DataError(compose(f"one column of label maps in {file}", got, "pass segments_column= to say which"))


def _content(picture: Any) -> bytes | None:
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    return content if isinstance(content, bytes) else None
