"""Measure bytes on disk."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NoReturn

from aerogel.errors import DataError, compose
from aerogel.measure.results import Measurement


def size_bytes(path: str | os.PathLike[str]) -> int:
    """Add up the sizes of a file, or of every regular file in a folder, as ``os.stat`` gives them.

    Lengths, not blocks: what a copy or a download takes. Links to files are followed and a file reached twice
    counts once, so that a snapshot folder of a hub cache weighs what it holds; links to folders are not
    entered.

    Raises:
        DataError: nothing is there, a link is broken, or it is neither a file nor a folder.
    """
    root = Path(path)
    status = _stat(root)
    if S_ISREG(status.st_mode):
        return status.st_size
    if not S_ISDIR(status.st_mode):
        raise DataError(compose("a file or a folder", f"{root}, which is neither", "pass another path"))
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(root, onerror=_refuse):
        for name in names:
            status = _stat(Path(folder, name))
            if S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def measure_storage(path: str | os.PathLike[str], name: str = "size on disk") -> Measurement:
    """Measure ``size_bytes`` of a file or folder, in bytes."""
    return Measurement(name, size_bytes(path), "bytes")


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        _refuse(error, path)


def _refuse(error: OSError, path: Path | None = None) -> NoReturn:
    where = path or error.filename
    raise DataError(
        compose("files that can be read", f"{where}: {error.strerror}", "check the path and its permissions")
    ) from error
