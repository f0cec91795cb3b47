"""Gather decoded pictures and labels into an ImageSet, collecting every problem before refusing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from aerogel.core.progress import announce, track
from aerogel.zoo.decode import PictureError, decode_picture
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.mapped import gather_mapped, needed_bytes
from aerogel.zoo.records import Problems, Record, describe_label, list_problems, note_empty
from aerogel.zoo.request import UNSTATED, Request


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
    if stamp is not None and needed_bytes(request, total) > request.memory_bytes:
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
