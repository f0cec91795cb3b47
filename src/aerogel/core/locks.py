"""One run at a time in one folder."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aerogel.core.files import make_parents, storage_errors
from aerogel.errors import FolderConflictError, compose

__all__ = ["hold_lock", "lock_path"]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


def lock_path(folder: str | Path) -> Path:
    """Name the lock file of a folder: a hidden sibling."""
    target = Path(folder)
    return target.with_name(f".{target.name}.lock")


@contextmanager
def hold_lock(folder: str | Path) -> Iterator[None]:
    """Keep every other run, thread or process, out of a folder while the block runs.

    The operating system holds the lock for the open file, and drops it when the process ends in whatever way,
    so a killed run never blocks the next one. The process number in the file is for the message only.

    Raises:
        FolderConflictError: another run holds the lock.
    """
    path = lock_path(folder)
    with storage_errors(path):
        make_parents(path)
        lock = _Lock(_acquire(path, Path(folder)))
    # A forked data-loading worker that outlives a killed run must not hold its lock.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock.close)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.close()


class _Lock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _acquire(path: Path, folder: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor, path):
                owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
                raise FolderConflictError(
                    compose(
                        f"{folder} to be free",
                        f"another run working in it (process {owner})",
                        "wait for it to end, stop it, or choose another folder",
                    )
                )
            if _is_current(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The previous owner removed the file between our open and our lock.
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            return False
        warnings.warn(f"the file system of {path} has no locks: run only one job there", stacklevel=4)
    return True
