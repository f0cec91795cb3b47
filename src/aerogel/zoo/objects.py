"""Hold one photo with the masks of its objects, which are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aerogel.zoo.rle import Runs, decode_runs


class MaskSource(Protocol):
    """Masks of one photo that are stored in a compact form."""

    def read(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Decode the masks of these objects, boolean [len(rows), H, W]."""
        ...


@dataclass(frozen=True)
class SegmentedPhoto:
    """A photo uint8 [H, W, 3] in RGB, and N objects in it.

    ``objects`` are their ids, unique in the photo; ``boxes`` are float64 [N, 4], x and y of two corners in
    pixels; ``areas`` count the pixels of each mask; ``points`` [N, 2] are x and y of a point that the data
    set gives for each object, if it does.
    """

    identifier: str
    image: NDArray[np.uint8]
    objects: tuple[str, ...]
    boxes: NDArray[np.float64]
    areas: NDArray[np.int64]
    points: NDArray[np.float64] | None
    source: MaskSource

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.image.shape[:2]
        return height, width

    def masks(self, rows: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """Decode the masks of all objects or of some: boolean [N, H, W]."""
        return self.source.read(range(len(self)) if rows is None else rows)

    def keep(self, rows: Sequence[int]) -> SegmentedPhoto:
        """Return the photo with these objects only."""
        index = list(rows)
        return replace(
            self,
            objects=tuple(self.objects[row] for row in index),
            boxes=self.boxes[index],
            areas=self.areas[index],
            points=None if self.points is None else self.points[index],
            source=_Part(self.source, tuple(index)),
        )


@dataclass(frozen=True)
class RunMasks:
    """Masks stored as runs."""

    runs: tuple[Runs, ...]
    size: tuple[int, int]

    def read(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Decode the masks of these objects, boolean [len(rows), H, W]."""
        return decode_runs([self.runs[row] for row in rows], self.size)


@dataclass(frozen=True)
class LabelMasks:
    """Masks stored as label maps int32 [H, W]: one object for each pair of a map's number and a label."""

    maps: tuple[NDArray[np.int32], ...]
    labels: tuple[tuple[int, int], ...]

    def read(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Decode the masks of these objects, boolean [len(rows), H, W]."""
        masks = np.empty((len(rows), *self.maps[0].shape), dtype=bool)
        for place, row in enumerate(rows):
            number, label = self.labels[row]
            np.equal(self.maps[number], label, out=masks[place])
        return masks


@dataclass(frozen=True)
class _Part:
    source: MaskSource
    rows: tuple[int, ...]

    def read(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        return self.source.read([self.rows[row] for row in rows])
