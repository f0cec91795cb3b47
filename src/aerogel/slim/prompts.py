"""Make one prompt for each object from its mask: a random, central or stored point, or the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aerogel.core.randomness import derive_seed, uniforms
from aerogel.errors import ConfigError, DataError, compose
from aerogel.zoo.objects import SegmentedPhoto

PromptKind = Literal["point", "centre", "stored", "box"]
_LOOK = 8
"""How many shifts are made before looking again where they still matter."""
PROMPT_KINDS: tuple[PromptKind, ...] = ("point", "centre", "stored", "box")


def make_prompts(
    photo: SegmentedPhoto,
    kind: PromptKind,
    rows: Sequence[int],
    masks: NDArray[np.bool_],
    *,
    seed: int = 0,
    turn: int = 0,
) -> NDArray[np.float64]:
    """Make the prompts of some objects of a photo, whose ``masks`` are [len(rows), H, W].

    Points are [len(rows), 2], x and y as numbers of a pixel; boxes are [len(rows), 4], x and y of two
    corners. "point" draws a pixel of the mask, another in each ``turn``; "centre" takes the one farthest from
    its border, "stored" the point that the data set gives, as SA-1B does; "box" is the data set's box.

    Raises:
        DataError: an empty mask, or no stored points.
        ConfigError: an unknown kind.
    """
    if kind == "box":
        return photo.boxes[list(rows)]
    if kind == "stored":
        if photo.points is None:
            remedy = "use 'point' or 'centre'"
            raise DataError(compose(f"points stored with {photo.identifier}", "none", remedy))
        return photo.points[list(rows)]
    if kind == "point":
        drawn = [
            draw_point(mask, seed=seed, image=photo.identifier, name=photo.objects[row], turn=turn)
            for row, mask in zip(rows, masks, strict=True)
        ]
    elif kind == "centre":
        drawn = [find_centre(mask) for mask in masks]
    else:
        raise ConfigError(compose(f"a prompt of {', '.join(PROMPT_KINDS)}", repr(kind), "pass one of them"))
    return np.array(drawn, dtype=np.float64).reshape(-1, 2)


def draw_point(
    mask: NDArray[np.bool_], *, seed: int, image: str, name: str, turn: int = 0
) -> tuple[int, int]:
    """Draw a pixel of a mask [H, W], each as likely as the other; the result is its x and y.

    It depends on the seed, the turn, the mask and the ids of image and object alone: not on which other
    objects, images or models are looked at.

    Raises:
        DataError: an empty mask.
    """
    pixels = np.flatnonzero(mask)
    if not len(pixels):
        raise _empty(image, name)
    stream, first = derive_seed(seed, "point", image, name), np.zeros(1, dtype=np.int64)
    draw = uniforms(stream, "point", turn, first, 1)[0, 0]
    # The product may round up to the number of pixels.
    y, x = divmod(int(pixels[min(int(draw * len(pixels)), len(pixels) - 1)]), mask.shape[1])
    return x, y


def find_centre(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Find the pixel of a mask [H, W] that lies farthest from its border; the result is its x and y.

    The distance is Euclidean, to the nearest pixel outside the mask or the image; of equally far pixels it is
    the first in reading order. The cost grows with the mask's pixels times its half width.

    Raises:
        DataError: an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise _empty("the photo", "of this mask")
    top, left = int(rows[0]), int(columns[0])
    far = square_distances(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    y, x = divmod(int(far.argmax()), far.shape[1])
    return left + x, top + y


def square_distances(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Measure each pixel's squared Euclidean distance to the nearest pixel outside a mask [H, W], exactly.

    Pixels outside the mask have distance 0, and everything outside the array counts as outside the mask. The
    squared distance is the minimum over a row of (x - x')^2 + g(x')^2, g being the distance along a column
    (Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012, section 2.2); the
    minimum is taken by shifts, over the part of the array where a pixel is left that they can bring down.
    """
    if mask.shape[0] > mask.shape[1]:
        # Columns should be short: the distances along them bound the number of shifts.
        return np.ascontiguousarray(square_distances(mask.T).T)
    padded = np.pad(mask, 1)
    height, width = padded.shape
    # Sums of two squares must fit: half the width for half the time.
    along = np.zeros((height, width), dtype=np.int32 if max(height, width) < 2**15 else np.int64)
    for y in range(1, height):
        along[y] = np.where(padded[y], along[y - 1] + 1, 0)
    for y in range(height - 2, -1, -1):
        along[y] = np.minimum(along[y], along[y + 1] + 1)
    columns = along**2
    found = columns.copy()
    rows, left, right = slice(0, height), 0, width
    for shift in range(1, width):
        square = shift * shift
        if shift % _LOOK == 1:
            # A pixel at most this shift away from the border has its distance already.
            open_ = found[rows, left:right] > square
            down, across = np.flatnonzero(open_.any(axis=1)), np.flatnonzero(open_.any(axis=0))
            if not len(down):
                break
            rows = slice(rows.start + int(down[0]), rows.start + int(down[-1]) + 1)
            left, right = left + int(across[0]), left + int(across[-1]) + 1
        for start, end, step in ((max(left, shift), right, -shift), (left, min(right, width - shift), shift)):
            if start < end:
                part = found[rows, start:end]
                np.minimum(part, columns[rows, start + step : end + step] + square, out=part)
    return np.ascontiguousarray(found[1:-1, 1:-1], dtype=np.int64)


def _empty(image: str, name: str) -> DataError:
    return DataError(
        compose(f"a mask with pixels for object {name} of {image}", "an empty one", "leave empty masks out")
    )
