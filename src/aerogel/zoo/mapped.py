"""Image sets larger than memory: decoded once into a file of pixels, which is mapped and read as needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aerogel.core.canonical import canonical_sha256
from aerogel.core.files import write_text_atomic
from aerogel.core.manifests import Manifest
from aerogel.core.progress import announce, track
from aerogel.core.stages import CHECKPOINT_NAME, Stage, run_stage
from aerogel.errors import FolderConflictError
from aerogel.measure import format_bytes
from aerogel.zoo.decode import PictureError, decode_picture
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.records import Problems, Record, describe_label, list_problems, note_empty
from aerogel.zoo.request import Request

KIND = "image-cache"
PIXELS = "pixels.u8"
ROWS = "rows.jsonl"
_STATE = "state.json"
_SAVE_EVERY = 4096
_WAIT_S = 1.0


class MappedRows:
    """Stand in for a uint8 tensor [N, C, S, S] whose images lie in a file: an index reads what it names.

    Choosing images with :meth:`select` copies none.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, pixels: Tensor, rows: Tensor) -> None:
        self._pixels = pixels
        self._rows = rows

    @property
    def shape(self) -> torch.Size:
        """Return the shape [N, C, S, S]."""
        return torch.Size([len(self._rows), *self._pixels.shape[1:]])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Tensor:
        """Read the images that the first index names, as a tensor of their own."""
        if not isinstance(key, tuple):
            return self._pixels[self._rows[key]]
        inside = (slice(None), *key[1:])
        return self._pixels[self._rows[key[0]]][inside]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def split(self, count: int) -> Iterator[Tensor]:
        """Read the images in order, ``count`` at a time."""
        return (self[start : start + count] for start in range(0, len(self), count))

    def select(self, rows: Tensor) -> MappedRows:
        """Return the images at ``rows``, in that order, without reading them."""
        return MappedRows(self._pixels, self._rows[rows])


@dataclass
class _Writer:
    """Hold where decoding is: ``seen`` records gave ``rows`` images; ``skipped`` were left out."""

    folder: Path
    shape: tuple[int, int, int]
    seen: int = 0
    skipped: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    saved: int = 0

    def resume_(self) -> None:
        """Go to where the last save is; what was written after it is written again."""
        path = self.folder / CHECKPOINT_NAME / _STATE
        if not path.exists():
            (self.folder / ROWS).unlink(missing_ok=True)
            return
        state = json.loads(path.read_text(encoding="utf-8"))
        self.seen, self.skipped, self.saved = state["seen"], state["skipped"], state["rows"]
        os.truncate(self.folder / ROWS, state["bytes"])
        self.labels, self.ids = read_rows(self.folder / ROWS)

    def save(self, pixels: Any) -> None:
        """Bring pixels and rows to the disk, then note how far they are."""
        pixels.flush()
        os.fsync(pixels.fileno())
        with open(self.folder / ROWS, "a", encoding="ascii") as file:
            for label, name in zip(self.labels[self.saved :], self.ids[self.saved :], strict=True):
                file.write(json.dumps([label, name]) + "\n")
            file.flush()
            os.fsync(file.fileno())
            written = file.tell()
        self.saved = len(self.labels)
        state = {"seen": self.seen, "rows": self.saved, "skipped": self.skipped, "bytes": written}
        (self.folder / CHECKPOINT_NAME).mkdir(exist_ok=True)
        write_text_atomic(self.folder / CHECKPOINT_NAME / _STATE, json.dumps(state))

    def forget(self) -> None:
        """Delete what was decoded, so that a refused source leaves no gigabytes."""
        for path in (self.folder / PIXELS, self.folder / ROWS, self.folder / CHECKPOINT_NAME / _STATE):
            path.unlink(missing_ok=True)


def needed_bytes(request: Request, total: int) -> int:
    """Return the bytes of ``total`` images of the size that is asked for; 0 where none is."""
    return 0 if request.size is None else total * (request.channels or 3) * request.size**2


def gather_mapped(
    records: Iterable[Record],
    class_names: tuple[str, ...],
    places: Mapping[int | str | None, int],
    request: Request,
    *,
    name: str,
    total: int,
    problems: Problems,
    licence: str,
    stamp: Any,
) -> ImageSet:
    """Decode records into a file of pixels in the user's cache, and return the images as they lie there.

    ``stamp`` tells one state of the source from another. A killed decoding goes on where it was, a finished
    one is verified and used again. channels None gives RGB. ``AEROGEL_CACHE`` moves the cache.

    Raises:
        DataError: listing all problems, those noted before included.
        IntegrityError: the file of pixels is damaged.
        StorageFullError: the disk has no room for the pixels, said before any is written.
    """
    size, channels = int(request.size or 0), request.channels or 3
    settings = {"size": size, "channels": channels, "skip_bad": request.skip_bad}
    source = canonical_sha256({"stamp": stamp, "classes": list(class_names)}, "stamp")
    key = canonical_sha256({**settings, "source": source}, "cache")[:16]
    folder = _cache() / f"{name}-{key}"
    need = needed_bytes(request, total)
    if not folder.exists():
        announce(f"{name}: {total:,} images are decoded once, into {format_bytes(need)} at {folder}")

    def build(work: Path) -> Mapping[str, Any]:
        writer = _Writer(work, (channels, size, size))
        writer.resume_()
        _decode_all(writer, records, places, request, name, total, problems, len(class_names))
        note_empty(problems, class_names, writer.labels, bool(writer.skipped))
        if problems.found:
            writer.forget()
        problems.refuse("correct each of these; skip_bad=True leaves unusable pictures out")
        if writer.skipped:
            announce(
                f"{name}: left out {len(writer.skipped)} unusable pictures: {list_problems(writer.skipped)}"
            )
        return {"images": len(writer.labels), "channels": channels, "size": size}

    facts = _run_in_turn(Stage(folder, KIND, settings, {"source": source}), build, need).facts
    labels, ids = read_rows(folder / ROWS)
    count = int(facts["images"])
    pixels = torch.from_file(
        str(folder / PIXELS), shared=False, size=count * channels * size**2, dtype=torch.uint8
    ).view(count, channels, size, size)
    images = cast(Tensor, MappedRows(pixels, torch.arange(count)))
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64), class_names, tuple(ids), name, licence)


def _run_in_turn(stage: Stage, build: Callable[[Path], Mapping[str, Any]], need_bytes: int) -> Manifest:
    """Run a stage, or wait while another process does: processes that train together open the same set."""
    partial = stage.folder.with_name(f"{stage.folder.name}.partial") / PIXELS
    while True:
        written = partial.stat().st_size if partial.exists() else 0
        try:
            return run_stage(stage, build, need_bytes=max(0, need_bytes - written))
        except FolderConflictError:
            time.sleep(_WAIT_S)


def _decode_all(
    writer: _Writer,
    records: Iterable[Record],
    places: Mapping[int | str | None, int],
    request: Request,
    name: str,
    total: int,
    problems: Problems,
    classes: int,
) -> None:
    row_bytes = int(np.prod(writer.shape))
    path = writer.folder / PIXELS
    path.touch()
    done = writer.seen
    with open(path, "r+b") as pixels:
        pixels.truncate(len(writer.labels) * row_bytes)
        pixels.seek(0, os.SEEK_END)
        for number, record in enumerate(track(records, total=total, label=f"decode {name}", unit="image")):
            if number < done:
                continue
            writer.seen = number + 1
            label = places.get(record.label)
            if label is None:
                problems.add(f"{record.identifier}: {describe_label(record.label, classes)}")
                continue
            try:
                array = _decode(record, request, writer.shape[0])
            except PictureError as error:
                (writer.skipped.append if request.skip_bad else problems.add)(f"{record.identifier}: {error}")
                continue
            pixels.write(array.tobytes())
            writer.labels.append(label)
            writer.ids.append(record.identifier)
            if writer.seen % _SAVE_EVERY == 0 and not problems.found:
                writer.save(pixels)
        writer.save(pixels)


def _decode(record: Record, request: Request, channels: int) -> NDArray[np.uint8]:
    if record.content is None:
        raise PictureError("no picture stored")
    wanted: Any = channels
    found: NDArray[np.uint8] = decode_picture(record.content, size=request.size, channels=wanted)
    return found


def read_rows(path: Path) -> tuple[list[int], list[str]]:
    """Read the labels and ids of the images in a file of pixels."""
    labels, ids = [], []
    with open(path, encoding="ascii") as file:
        for line in file:
            label, name = json.loads(line)
            labels.append(int(label))
            ids.append(str(name))
    return labels, ids


def _cache() -> Path:
    root = os.environ.get("AEROGEL_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "aerogel") / "images"
