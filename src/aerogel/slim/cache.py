"""Keep what a frozen teacher makes of photos on disk, within a budget, so that it is computed once."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aerogel.core.canonical import canonical_sha256
from aerogel.core.files import write_bytes_atomic
from aerogel.errors import StorageFullError

_DTYPE = torch.float16


@dataclass(frozen=True)
class TeacherCache:
    """Stores the features of the first ``count`` pictures of a list, a file for each, in float16.

    ``teacher`` is the digest of the model, with anything else that its features depend on. ``shapes`` are
    those of one picture's features, by name. So much of the disk as ``spare_bytes`` is left to others.
    """

    folder: Path
    teacher: str
    shapes: Mapping[str, tuple[int, ...]]
    count: int
    spare_bytes: int = 0

    @property
    def need_bytes(self) -> int:
        """Return how many bytes the files take when all are there."""
        return self.count * measure_item(self.shapes)

    def fetch(
        self,
        index: int,
        identifier: str,
        image: NDArray[np.uint8],
        compute: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the features of picture number ``index``, from disk or from ``compute``, then stored.

        What is stored is rounded to float16, and so is what was just computed: a run does not depend on which
        files were there, nor on whether the disk had room for them. A damaged file is written anew; a photo
        that changed, which its ``image`` shows, has another file. Features too large for float16 are neither
        stored nor rounded. Several processes may write at once: the same photo gives the same file.
        """
        if index >= self.count:
            return dict(compute())
        path = self._place(identifier, image)
        found = self._read(path)
        if found is not None:
            return found
        exact = dict(compute())
        rounded = {name: tensor.detach().to("cpu", _DTYPE).contiguous() for name, tensor in exact.items()}
        if not all(bool(tensor.isfinite().all()) for tensor in rounded.values()):
            return exact
        self._store(path, _pack(rounded, path.stem))
        return rounded

    def _store(self, path: Path, content: bytes) -> None:
        """Write a file where there is room: nothing that can be computed again may end a run."""
        nearest = next(each for each in path.parents if each.exists())
        if shutil.disk_usage(nearest).free < self.spare_bytes + len(content):
            return
        with suppress(StorageFullError):
            write_bytes_atomic(path, content)

    def _place(self, identifier: str, image: NDArray[np.uint8]) -> Path:
        content = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest()
        key = canonical_sha256([self.teacher, identifier, list(image.shape), content])
        # Folders of a few dozen files: a writer looks through its own.
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                facts = stored.metadata() or {}
                found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError):
            return None
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        sound = shapes == {name: tuple(shape) for name, shape in self.shapes.items()} and all(
            tensor.dtype == _DTYPE for tensor in found.values()
        )
        return found if sound and facts == _describe(found, path.stem) else None


def plan_cache(
    folder: Path,
    teacher: str,
    shapes: Mapping[str, tuple[int, ...]],
    photos: int,
    budget_bytes: int,
    *,
    spare_bytes: int = 0,
) -> TeacherCache:
    """Plan which of so many ``photos`` are cached: the first of the list, as many as the budget holds."""
    count = min(photos, budget_bytes // measure_item(shapes))
    return TeacherCache(folder, teacher, dict(shapes), count, spare_bytes)


def measure_item(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the bytes of the file of one photo, whose features have these ``shapes``."""
    empty = {name: torch.zeros(shape, dtype=_DTYPE) for name, shape in shapes.items()}
    return len(_pack(empty, "0" * 64))


def _pack(tensors: Mapping[str, Tensor], key: str) -> bytes:
    packed: bytes = save(dict(tensors), metadata=_describe(tensors, key))
    return packed


def _describe(tensors: Mapping[str, Tensor], key: str) -> dict[str, str]:
    """Return the facts that a file carries: whose it is, and the check sum of its numbers.

    They are one entry, since safetensors writes several in any order.
    """
    check = 0
    for _, tensor in sorted(tensors.items()):
        check = zlib.crc32(tensor.contiguous().numpy().data, check)
    return {"aerogel": f"{key} {check:08x}"}
