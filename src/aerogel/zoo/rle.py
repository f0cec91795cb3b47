"""Read masks stored as runs or polygons, as COCO and SA-1B do, through pycocotools."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerogel.errors import MissingDependencyError, compose
from aerogel.zoo.decode import PictureError

Runs = dict[str, Any]
"""A mask as pycocotools takes it: "size" [height, width] and "counts", compressed, as bytes."""


def import_coder() -> Any:
    """Import pycocotools' mask module.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        return import_module("pycocotools.mask")
    except ImportError as error:
        remedy = 'pip install "aerogel[slim]"'
        raise MissingDependencyError(
            compose("pycocotools, to read COCO's and SA-1B's masks", "none", remedy)
        ) from error


def read_runs(segmentation: Any, size: tuple[int, int]) -> Runs:
    """Bring a "segmentation" of a COCO or SA-1B file to compressed runs for an image of (height, width).

    It is a list of polygons, or runs whose counts are a list of numbers or compressed to text. All of it is
    checked here: pycocotools trusts what it is given, and damaged counts make it read past their end.

    Raises:
        PictureError: none of these forms, of another size, or runs that do not fill the image.
        MissingDependencyError: pycocotools is not installed.
    """
    coder = import_coder()
    height, width = size
    if isinstance(segmentation, list):
        polygons = [_check_polygon(each) for each in segmentation]
        if not polygons:
            raise PictureError("a mask without polygons")
        merged: Runs = coder.merge(coder.frPyObjects(polygons, height, width))
        return merged
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise PictureError("a mask that is neither polygons nor runs with size and counts")
    if segmentation["size"] != [height, width]:
        raise PictureError(f"a mask of size {segmentation['size']} for an image of [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        _check_total(counts, height * width)
        packed: Runs = coder.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return packed
    if not isinstance(counts, (str, bytes)):
        raise PictureError(f"the counts of a mask as {type(counts).__name__}")
    text = counts if isinstance(counts, bytes) else counts.encode("utf-8")
    _check_total(_unpack(text), height * width)
    return {"size": [height, width], "counts": text}


def decode_runs(runs: Sequence[Runs], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode what `read_runs` returned to boolean masks [N, H, W]."""
    if not runs:
        return np.zeros((0, *size), dtype=bool)
    coder = import_coder()
    with warnings.catch_warnings():
        # Its arrays do not know a keyword of numpy 2, which numpy warns of and does without.
        warnings.simplefilter("ignore", DeprecationWarning)
        decoded = coder.decode(list(runs))
    return np.ascontiguousarray(np.moveaxis(decoded, 2, 0)).astype(bool)


def count_pixels(runs: Sequence[Runs]) -> NDArray[np.int64]:
    """Count the pixels of each mask, without decoding it."""
    if not runs:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(import_coder().area(list(runs)), dtype=np.int64)


def box_runs(runs: Sequence[Runs]) -> NDArray[np.float64]:
    """Find the tight box of each mask: [N, 4] as x and y of two corners, without decoding it."""
    if not runs:
        return np.zeros((0, 4))
    return corners(np.asarray(import_coder().toBbox(list(runs)), dtype=np.float64))


def corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn boxes [N, 4] of a corner, width and height, as COCO and SA-1B have them, to two corners."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _check_polygon(polygon: Any) -> list[float]:
    good = (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(isinstance(each, (int, float)) and isfinite(each) for each in polygon)
    )
    if not good:
        raise PictureError("a polygon that is not a list of three or more x, y")
    return [float(each) for each in polygon]


def _check_total(counts: Sequence[Any], pixels: int) -> None:
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in counts):
        raise PictureError("a mask with runs that are not whole numbers of zero or more")
    if sum(counts) != pixels:
        raise PictureError(f"a mask whose runs fill {sum(counts):,} of {pixels:,} pixels")


def _unpack(text: bytes) -> list[int]:
    """Read the run lengths of compressed counts, for checking them.

    Each number is written in base 32, lowest digits first, one character of 48 + digit each, 32 more where
    another follows; bit 16 of the last is the sign. From the fourth on, numbers are differences to the one
    before last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = character - 48
        if not 0 <= digit < 64:
            raise PictureError("a mask with damaged counts")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise PictureError("a mask with counts that break off")
    return counts
