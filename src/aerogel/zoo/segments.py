"""Photos with the masks of their objects, to evaluate segmenters on: SA-1B, COCO and label maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from aerogel.errors import ConfigError, DataError, compose
from aerogel.zoo.coco import CocoInstances, Sa1bFolder, find_json
from aerogel.zoo.decode import PictureError
from aerogel.zoo.labelmaps import LabelMapRows
from aerogel.zoo.objects import SegmentedPhoto
from aerogel.zoo.parquet import find_parquet
from aerogel.zoo.selection import Skipped, select_usable


class SegmentSource(Protocol):
    """A place that photos with masks can be read from by number."""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The photos' ids, in order."""
        ...

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out while listing, and why."""
        ...

    def read(self, number: int) -> SegmentedPhoto:
        """Read one photo with its objects; raise PictureError where that fails."""
        ...


@dataclass(frozen=True)
class SegmentedPhotos:
    """The photos chosen from a source, in a fixed order; each is read when it is asked for.

    Objects smaller than ``smallest_share`` of their photo are left out, and so are empty ones.
    ``skipped`` says which photos were left out, and why.
    """

    name: str
    source: SegmentSource
    numbers: tuple[int, ...]
    smallest_share: float = 0.0
    skipped: tuple[Skipped, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the photos, in order."""
        return tuple(self.source.identifiers[number] for number in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> SegmentedPhoto:
        """Read one photo with its objects.

        Raises:
            PictureError: it was changed since it was chosen.
        """
        number = self.numbers[index]
        try:
            return _read(self.source, number, self.smallest_share)
        except PictureError as error:
            raise PictureError(f"{self.source.identifiers[number]}: {error}") from error

    def __iter__(self) -> Iterator[SegmentedPhoto]:
        return (self[index] for index in range(len(self)))


def open_segments(
    source: str | Path,
    *,
    images: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    smallest_share: float = 0.0,
    annotator: int | None = None,
    image_column: str | None = None,
    segments_column: str | None = None,
) -> SegmentedPhotos:
    """Find photos with masks, look at each before work starts, and read them later one by one.

    source: a folder of SA-1B, photos and JSON files paired by name; a JSON file of COCO instances; or parquet
    (a file or a folder of them) with a column of pictures and one of label maps.
    images: the folder of the photos, where the JSON files lie elsewhere; COCO's must be given.
    limit, seed: how many photos, and which; see `open_photos`.
    smallest_share: leave out objects that fill less than this share of their photo.
    annotator: of several label maps of a photo, take this one only, counted from 0; None takes all.
    image_column, segments_column: the columns to read, where it is not clear.

    Raises:
        DataError: nothing found, no usable photo, or fewer than the limit; it lists what was left out.
        ConfigError: arguments out of range.
        MissingDependencyError: pycocotools or pyarrow is not installed.
    """
    if not 0 <= smallest_share < 1:
        raise ConfigError(
            compose("smallest_share from 0 to below 1", repr(smallest_share), "pass for example 0.01")
        )
    if annotator is not None and annotator < 0:
        raise ConfigError(compose("annotator 0, 1, …, or None", repr(annotator), "count annotators from 0"))
    path = Path(source).expanduser()
    found: SegmentSource
    if (path.suffix == ".parquet" and path.is_file()) or (path.is_dir() and find_parquet(path)):
        found = LabelMapRows(
            path, image_column=image_column, segments_column=segments_column, annotator=annotator
        )
    else:
        found = _find_json(path, None if images is None else Path(images).expanduser())
    numbers, skipped = select_usable(
        found.identifiers,
        lambda number: _read(found, number, smallest_share),
        limit=limit,
        seed=seed,
        where=str(source),
        skipped=found.skipped,
        what="photos with masks",
    )
    return SegmentedPhotos(str(source), found, numbers, smallest_share, skipped)


def _find_json(path: Path, images: Path | None) -> SegmentSource:
    if images is not None and not images.is_dir():
        raise DataError(compose("a folder of photos as images", str(images), "correct the path"))
    if path.suffix == ".json" and path.is_file():
        if images is None:
            remedy = "pass images= with that folder"
            raise DataError(compose(f"the folder of the photos of {path}", "none", remedy))
        return CocoInstances(path, images)
    if path.is_dir() and find_json(path):
        return Sa1bFolder(path, None) if images is None else Sa1bFolder(images, path)
    expected = "a folder of SA-1B (jpg and json), a JSON file of COCO instances, or parquet with label maps"
    raise DataError(compose(expected, repr(str(path)), "correct the path"))


def _read(source: SegmentSource, number: int, smallest_share: float) -> SegmentedPhoto:
    photo = source.read(number)
    if not len(photo):
        raise PictureError("no objects")
    height, width = photo.size
    large = (photo.areas > 0) & (photo.areas >= smallest_share * height * width)
    if not large.any():
        raise PictureError(f"no object of at least {100 * smallest_share:g} % of the photo")
    return photo if large.all() else photo.keep(np.flatnonzero(large).tolist())
