"""A slow coder of COCO's runs, written from their definition: the tests' own, to hold the real one against.

It has the functions of pycocotools' mask module that are used, and stands in where that is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest


def count_runs(mask: np.ndarray) -> list[int]:
    """Count pixels down the columns, zeros first, then ones, by turns."""
    counts, now = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != now:
            counts.append(0)
            now = pixel
        counts[-1] += 1
    return counts


def write_counts(counts: list[int]) -> bytes:
    """Write run lengths in base 32, low digits first; from the fourth on, steps from the one before last."""
    text = bytearray()
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            digit = value & 31
            value >>= 5
            last = value == (-1 if digit & 16 else 0)
            text.append(48 + digit + (0 if last else 32))
            if last:
                break
    return bytes(text)


def read_counts(text: bytes | str) -> Iterator[int]:
    found: list[int] = []
    digits: list[int] = []
    for character in text.encode() if isinstance(text, str) else text:
        digits.append(character - 48)
        if digits[-1] < 32:
            value = sum((digit % 32) << (5 * place) for place, digit in enumerate(digits))
            value -= (1 << (5 * len(digits))) if digits[-1] >= 16 else 0
            found.append(value + found[-2] if len(found) > 2 else value)
            digits = []
            yield found[-1]


def encode(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": write_counts(count_runs(mask))}


def decode_one(runs: dict[str, Any]) -> np.ndarray:
    height, width = runs["size"]
    pixels: list[int] = []
    for place, count in enumerate(read_counts(runs["counts"])):
        pixels += [place % 2] * count
    return np.array(pixels, dtype=np.uint8).reshape(width, height).T


class Coder:
    """The functions of pycocotools.mask that the package uses; polygons must be rectangles on pixel edges."""

    def decode(self, many: list[dict[str, Any]]) -> np.ndarray:
        return np.stack([decode_one(each) for each in many], axis=2)

    def area(self, many: list[dict[str, Any]]) -> np.ndarray:
        return np.array([decode_one(each).sum() for each in many], dtype=np.uint32)

    def toBbox(self, many: list[dict[str, Any]]) -> np.ndarray:
        boxes = []
        for each in many:
            y, x = np.nonzero(decode_one(each))
            boxes.append([x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1])
        return np.array(boxes, dtype=np.float64)

    def frPyObjects(self, given: Any, height: int, width: int) -> Any:
        if isinstance(given, dict):
            return {"size": given["size"], "counts": write_counts(given["counts"])}
        found = []
        for polygon in given:
            x, y = map(int, polygon[::2]), map(int, polygon[1::2])
            columns, rows = sorted(x), sorted(y)
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[rows[0] : rows[-1], columns[0] : columns[-1]] = 1
            found.append(encode(mask))
        return found

    def merge(self, many: list[dict[str, Any]]) -> dict[str, Any]:
        return encode(np.any([decode_one(each) for each in many], axis=0).astype(np.uint8))


@pytest.fixture
def coder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the real coder, or where it is not installed the slow one in its place."""
    try:
        from pycocotools import mask as real
    except ImportError:
        slow = Coder()
        monkeypatch.setattr("aerogel.zoo.rle.import_coder", lambda: slow)
        monkeypatch.setattr("aerogel.zoo.coco.import_coder", lambda: slow)
        return slow
    return real
