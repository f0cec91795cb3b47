"""Let the teacher name objects in photos without labels, so that a student can be held against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerogel.core.randomness import permutation
from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure.masks import find_boxes, mask_iou
from aerogel.slim.canvas import Canvas, scale_photo
from aerogel.slim.evaluation import evaluate
from aerogel.slim.scores import Evaluation
from aerogel.slim.segmenter import Segmenter
from aerogel.zoo.objects import SegmentedPhoto
from aerogel.zoo.photos import Photo

_SHARES = (0.002, 0.9)
_SAME = 0.85
_SHOWN_PX = 512


@dataclass(frozen=True)
class _Masks:
    """Masks of one size, eight pixels to a byte."""

    packed: NDArray[np.uint8]
    size: tuple[int, int]

    @classmethod
    def of(cls, stack: NDArray[np.bool_]) -> _Masks:
        return cls(np.packbits(stack.reshape(len(stack), -1), axis=1), (stack.shape[1], stack.shape[2]))

    def read(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        height, width = self.size
        plain = np.unpackbits(self.packed[list(rows)], axis=1, count=height * width)
        return plain.reshape(-1, height, width).astype(bool)


def find_objects(
    teacher: Any, photos: Iterable[Photo], *, grid: int = 5, most: int = 8, canvas: Canvas | None = None
) -> tuple[SegmentedPhoto, ...]:
    """Return the photos with what the teacher finds at the points of a grid; those with none are left out.

    Photos are scaled down to the square that the teacher sees, or 512 pixels, where they are larger: it sees
    no more of them, and masks of a dozen megapixels each would fill the memory. Each is asked at ``grid`` x
    ``grid`` points for one mask each. Masks of 0.2 % to 90 % of the photo count, of near equals (IoU above
    0.85) the first, ``most`` in a photo, spread over the grid. The photos carry the points, as ``points``,
    and the masks' boxes.

    Raises:
        ConfigError: a grid or a number of masks below 1.
    """
    return tuple(look_for_objects(teacher, photos, grid=grid, most=most, canvas=canvas))


def look_for_objects(
    teacher: Any, photos: Iterable[Photo], *, grid: int = 5, most: int = 8, canvas: Canvas | None = None
) -> Iterator[SegmentedPhoto]:
    """Yield what `find_objects` returns, photo by photo.

    Raises:
        ConfigError: a grid or a number of masks below 1.
    """
    if grid < 1 or most < 1:
        raise ConfigError(compose("grid and most of at least 1", f"{grid} and {most}", "raise them"))
    segmenter = Segmenter(teacher, canvas or Canvas.of(teacher))
    found = (_ask(segmenter, photo, grid, most) for photo in photos)
    return (photo for photo in found if photo is not None)


def measure_agreement(
    student: Any, teacher: Any, photos: Iterable[Photo], *, name: str | None = None
) -> Evaluation:
    """Hold a student's masks against the teacher's for the same points and boxes, on photos without labels.

    Points lie on a grid; the boxes are those of the teacher's masks for the points.

    Raises:
        DataError: the teacher finds nothing in these photos.
    """
    objects = find_objects(teacher, photos)
    if not objects:
        raise DataError(
            compose(
                "photos in which the teacher finds something",
                "none",
                "choose photos with things in them, or another teacher",
            )
        )
    return compare_masks(student, teacher, objects, name=name)


def compare_masks(
    student: Any, teacher: Any, objects: Sequence[SegmentedPhoto], *, name: str | None = None
) -> Evaluation:
    """Hold a student's masks against the teacher's for objects that `find_objects` returned."""
    return evaluate(student, objects, prompts=("stored", "box"), teacher=teacher, name=name)


def _ask(segmenter: Segmenter, photo: Photo, grid: int, most: int) -> SegmentedPhoto | None:
    image, most_px = photo.image, max(segmenter.canvas.size_px, _SHOWN_PX)
    if max(image.shape) > most_px:
        image = scale_photo(image, most_px)
    height, width = image.shape[:2]
    along = (np.arange(grid) + 0.5) / grid
    points = np.stack(np.meshgrid(along * width, along * height), -1).reshape(-1, 2)
    masks = segmenter.encode(image).segment("stored", points).cpu().numpy()
    shares = masks.mean((1, 2))
    kept: list[int] = []
    for row in _scatter(len(points)):
        if len(kept) < most and _SHARES[0] <= shares[row] <= _SHARES[1]:
            near = mask_iou(masks[kept], np.broadcast_to(masks[row], (len(kept), height, width)))
            kept += [] if (near > _SAME).any() else [row]
    if not kept:
        return None
    kept.sort()
    stack = masks[kept]
    return SegmentedPhoto(
        identifier=photo.identifier,
        image=image,
        objects=tuple(f"point-{row}" for row in kept),
        boxes=find_boxes(stack).numpy(),
        areas=stack.sum((1, 2)).astype(np.int64),
        points=points[kept],
        source=_Masks.of(stack),
    )


def _scatter(count: int) -> list[int]:
    """Return the points in an order that sees all of the photo early; it is the same for every photo."""
    return [int(number) for number in permutation(0, "agreement/points", 0, count)]
