"""Show a photo as it is, mirrored, or in part: by given numbers, not by chance of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aerogel.slim.config import Augment

DRAWS = 5  # numbers that a view takes
_AREA = (0.3, 1.0)  # of a part, as a share of the photo
_RATIO = (0.75, 4.0 / 3.0)  # of its width to its height
_SMALLEST_PX = 16


@dataclass(frozen=True)
class View:
    """Hold what is shown of a photo, uint8 [H, W, 3]; ``whole`` if that is the photo as it is."""

    image: NDArray[np.uint8]
    whole: bool


def show(image: NDArray[np.uint8], augment: Augment, draws: NDArray[np.float64]) -> View:
    """Return the view of a photo uint8 [H, W, 3] that ``draws``, 5 numbers in [0, 1), choose.

    "flip" mirrors every other photo. "crop" does too, and cuts out a part of 0.3 to 1 of the area whose width
    is 3/4 to 4/3 of its height, as far as the photo allows.
    """
    if augment == "none":
        return View(image, whole=True)
    mirrored = bool(draws[0] < 0.5)
    shown = _cut(image, draws[1:]) if augment == "crop" else image
    if mirrored:
        shown = shown[:, ::-1]
    return View(np.ascontiguousarray(shown), whole=augment == "flip" and not mirrored)


def _cut(image: NDArray[np.uint8], draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    area = height * width * (_AREA[0] + draws[0] * (_AREA[1] - _AREA[0]))
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    ratio = math.exp(low + draws[1] * (high - low))
    tall = min(height, max(_SMALLEST_PX, round(math.sqrt(area / ratio))))
    wide = min(width, max(_SMALLEST_PX, round(math.sqrt(area * ratio))))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    return image[top : top + tall, left : left + wide]
