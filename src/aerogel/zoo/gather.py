"""Gather decoded pictures and labels into an ImageSet, collecting every problem before refusing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aerogel.core.progress import announce, track
from aerogel.errors import DataError, compose
from aerogel.zoo.decode import PictureError, decode_picture
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.request import UNSTATED, Request

SHOWN = 20


@dataclass
class Problems:
    """Collect what is wrong with a source, to be reported all at once."""

    where: str
    found: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note one problem."""
        self.found.append(problem)

    def refuse(self, remedy: str) -> None:
        """Raise DataError listing the first 20 problems and their number; do nothing without any.

        Raises:
            DataError: when anything was noted.
        """
        if self.found:
            expected = f"readable, labelled images for every class in {self.where}"
            raise DataError(compose(expected, list_problems(self.found), remedy))


@dataclass(frozen=True)
class Record:
    """One image before decoding: provenance, class (an index or a name) and file or file bytes."""

    identifier: str
    label: int | str | None
    content: bytes | Path | None


def gather(
    records: Iterable[Record],
    class_names: tuple[str, ...],
    request: Request,
    *,
    name: str,
    total: int,
    problems: Problems,
    licence: str = UNSTATED,
    order: Sequence[int] | None = None,
    stamp: Callable[[], Any] | None = None,
) -> ImageSet:
    """Decode records to an ImageSet; channels None gives RGB as soon as one image has colour.

    order: the place in class_names of each class number that the records use; None for the same places.
    stamp: gives what tells one state of the source from another. With it, and a size, a set of more than
    request.memory_bytes is decoded to a file and read from there.

    Raises:
        DataError: listing all problems, those noted before included. With skip_bad unusable pictures
            are left out and each is reported; wrong labels and empty classes still refuse.
    """
    places: dict[int | str | None, int] = {name: index for index, name in enumerate(class_names)}
    places.update(enumerate(range(len(class_names)) if order is None else order))
    if stamp is not None and request.size is not None:
        from aerogel.zoo.mapped import gather_mapped, needed_bytes

        if needed_bytes(request, total) > request.memory_bytes:
            shared: dict[str, Any] = {"name": name, "total": total, "problems": problems, "licence": licence}
            return gather_mapped(records, class_names, places, request, stamp=stamp(), **shared)
    arrays: list[np.ndarray] = []
    labels: list[int] = []
    ids: list[str] = []
    skipped: list[str] = []
    for record in track(records, total=total, label=f"read {name}", unit="image"):
        label = places.get(record.label)
        if label is None:
            problems.add(f"{record.identifier}: {describe_label(record.label, len(class_names))}")
            continue
        try:
            array = _decode(record, request)
        except PictureError as error:
            (skipped.append if request.skip_bad else problems.add)(f"{record.identifier}: {error}")
            continue
        arrays.append(array)
        labels.append(label)
        ids.append(record.identifier)
    note_empty(problems, class_names, labels, bool(skipped))
    _note_sizes(problems, arrays)
    problems.refuse("correct each of these; skip_bad=True leaves unusable pictures out")
    if skipped:
        announce(f"{name}: left out {len(skipped)} unusable pictures: {list_problems(skipped)}")
    images = torch.from_numpy(_stack(arrays))
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64), class_names, tuple(ids), name, licence)


def _decode(record: Record, request: Request) -> np.ndarray:
    if record.content is None:
        raise PictureError("no picture stored")
    return decode_picture(record.content, size=request.size, channels=request.channels)


def describe_label(label: int | str | None, count: int) -> str:
    """Say what is wrong with a label that is in no list of ``count`` classes."""
    if label is None:
        return "no label"
    return f"label {label!r} is not in the class list of {count}"


def note_empty(
    problems: Problems, class_names: tuple[str, ...], labels: list[int], after_skipping: bool
) -> None:
    """Note every class without an image."""
    if not class_names:
        problems.add("no classes")
    seen = set(labels)
    suffix = " left after skipping" if after_skipping else ""
    for index, class_name in enumerate(class_names):
        if index not in seen:
            problems.add(f"class {class_name!r} has no usable images{suffix}")


def _note_sizes(problems: Problems, arrays: list[np.ndarray]) -> None:
    sizes = Counter(array.shape[1:] for array in arrays)
    if len(sizes) > 1:
        common = ", ".join(f"{w}x{h} ({count})" for (h, w), count in sizes.most_common(3))
        problems.add(f"images of {len(sizes)} sizes, such as {common}: pass size= to bring them to one")


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Stack while freeing the parts, so that memory peaks near the size of the result."""
    channels = max(array.shape[0] for array in arrays)
    stacked = np.empty((len(arrays), channels, *arrays[0].shape[1:]), dtype=np.uint8)
    for row in reversed(range(len(arrays))):
        stacked[row] = arrays.pop()
    return stacked


def list_problems(problems: list[str]) -> str:
    """Write the first 20 problems and how many there are."""
    shown = "; ".join(problems[:SHOWN])
    rest = len(problems) - SHOWN
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{count}: {shown}" + (f"; and {rest} more" if rest > 0 else "")
