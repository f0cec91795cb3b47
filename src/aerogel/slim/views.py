"""Show a photo as it is, mirrored, in part or among others: by given numbers, not by chance of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aerogel.slim.config import Augment

DRAWS = 5  # numbers that a view takes
TILES = 4  # of a mosaic, row by row
MOSAIC_DRAWS = 2 + 4 * TILES
_AREA = (0.3, 1.0)  # of a part, as a share of the photo
_RATIO = (0.75, 4.0 / 3.0)  # of its width to its height
_SMALLEST_PX = 16
_MIDDLE = (0.3, 0.7)  # where the tiles of a mosaic meet, as a share of its side


@dataclass(frozen=True)
class View:
    """Hold what is shown of a photo, uint8 [H, W, 3]; ``whole`` if that is the photo as it is."""

    image: NDArray[np.uint8]
    whole: bool


def show(image: NDArray[np.uint8], augment: Augment, draws: NDArray[np.float64]) -> View:
    """Return the view of a photo uint8 [H, W, 3] that ``draws``, 5 numbers in [0, 1), choose.

    "flip" mirrors every other photo. "crop" does too, and cuts out a part of 0.3 to 1 of the area whose width
    is 3/4 to 4/3 of its height, as far as the photo allows; "mosaic", for its views of one photo, as "crop".
    """
    if augment == "none":
        return View(image, whole=True)
    mirrored = bool(draws[0] < 0.5)
    shown = image if augment == "flip" else _cut(image, draws[1:])
    if mirrored:
        shown = shown[:, ::-1]
    return View(np.ascontiguousarray(shown), whole=augment == "flip" and not mirrored)


def lay_mosaic(images: Sequence[NDArray[np.uint8]], size_px: int, draws: NDArray[np.float64]) -> View:
    """Return a square of ``size_px`` pixels with parts of four photos uint8 [H, W, 3], row by row.

    ``draws``, 18 numbers in [0, 1), choose where tiles meet, at 0.3 to 0.7 of each side, and of each photo a
    part of its tile's shape, 0.3 to 1 of the largest such part's area, mirrored every other time. Things
    are as a rule smaller than in a crop, and their neighbours are others each time.
    """
    low, high = _MIDDLE
    down, across = (round(size_px * (low + draw * (high - low))) for draw in draws[:2])
    square = np.empty((size_px, size_px, 3), dtype=np.uint8)
    places = [
        (rows, columns)
        for rows in ((0, down), (down, size_px))
        for columns in ((0, across), (across, size_px))
    ]
    for image, (rows, columns), numbers in zip(images, places, draws[2:].reshape(TILES, 4), strict=True):
        tall, wide = rows[1] - rows[0], columns[1] - columns[0]
        part = _cut_like(image, tall / wide, numbers[1:])
        if numbers[0] < 0.5:
            part = part[:, ::-1]
        scaled = Image.fromarray(np.ascontiguousarray(part)).resize((wide, tall), Image.Resampling.BILINEAR)
        square[slice(*rows), slice(*columns)] = np.asarray(scaled)
    return View(square, whole=False)


def _cut_like(image: NDArray[np.uint8], ratio: float, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a part whose height is ``ratio`` times its width."""
    height, width = image.shape[:2]
    share = math.sqrt(_AREA[0] + draws[0] * (_AREA[1] - _AREA[0]))
    wide = min(width, height / ratio) * share
    tall, wide = max(1, round(wide * ratio)), max(1, round(wide))
    return _take(image, min(tall, height), min(wide, width), draws[1:])


def _take(image: NDArray[np.uint8], tall: int, wide: int, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    top, left = int(draws[0] * (height - tall + 1)), int(draws[1] * (width - wide + 1))
    return image[top : top + tall, left : left + wide]


def _cut(image: NDArray[np.uint8], draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    area = height * width * (_AREA[0] + draws[0] * (_AREA[1] - _AREA[0]))
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    ratio = math.exp(low + draws[1] * (high - low))
    tall = min(height, max(_SMALLEST_PX, round(math.sqrt(area / ratio))))
    wide = min(width, max(_SMALLEST_PX, round(math.sqrt(area * ratio))))
    return _take(image, tall, wide, draws[2:])
