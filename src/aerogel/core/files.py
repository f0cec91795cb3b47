"""Files that are written whole or not at all, and the questions asked of a disk."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aerogel.errors import DataError, FolderExistsError, IntegrityError, StorageFullError, compose

__all__ = [
    "TEMPORARY_PREFIX",
    "list_files",
    "make_parents",
    "open_regular",
    "require_space",
    "sha256_file",
    "storage_errors",
    "sweep_temporaries",
    "sync_folder",
    "sync_tree",
    "write_bytes_atomic",
    "write_text_atomic",
]

TEMPORARY_PREFIX = ".aerogel-tmp-"
_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


def sha256_file(path: str | Path) -> str:
    """Hash the bytes of a file; a link, a device or a pipe is refused.

    Raises:
        IntegrityError: there is no regular file.
    """
    digest = hashlib.sha256()
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading without following a link at its end; returns the descriptor.

    Raises:
        IntegrityError: there is no regular file.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    remedy = "make or copy the folder again"
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise IntegrityError(compose(f"a readable file at {path}", str(error), remedy)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(compose(f"a regular file at {path}", "a folder, device or pipe", remedy))
    return descriptor


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write text as UTF-8 so that the file is either as before or complete, also after a crash.

    Raises:
        StorageFullError: the disk is full; the file is as before.
        FolderExistsError: a folder lies at the path.
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write bytes so that the file is either as before or complete, also after a crash.

    Missing parent folders are made. What writers beside the path left there when they were killed is removed.

    Raises:
        StorageFullError: the disk is full; the file is as before.
        FolderExistsError: a folder lies at the path.
    """
    target = Path(path)
    if target.is_dir():
        raise FolderExistsError(
            compose(f"a file or nothing at {target}", "a folder", "choose another file name")
        )
    with storage_errors(target):
        make_parents(target)
        _sweep_orphans(target.parent)
        temporary = target.parent / f"{_own_prefix(os.getpid())}{os.urandom(8).hex()}"
        try:
            _write_new(temporary, data)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)


def require_file_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that a file cannot be written to, before the work whose result it is; make its folders.

    Raises:
        FolderExistsError: a folder is there, or a file that is not to be replaced.
        DataError: as of :func:`make_parents`.
    """
    if path.is_dir():
        raise FolderExistsError(compose(f"a file or nothing at {path}", "a folder", "name a file"))
    if path.exists() and not overwrite:
        raise FolderExistsError(
            compose(f"nothing at {path}", "a file", "choose another name (--out), or add --overwrite")
        )
    make_parents(path)


def make_parents(path: str | Path) -> None:
    """Make the folders that a path goes through.

    Raises:
        DataError: a file is in the way, or they may not be made.
    """
    try:
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            compose(f"folders on the way to {path}", f"a file ({error})", "choose another path")
        ) from error
    except PermissionError as error:
        remedy = "choose a place that you may write to"
        raise DataError(compose(f"the right to make {path}", str(error), remedy)) from error


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn any sign of a full disk in the block into StorageFullError.

    Libraries that write through native code report a full disk as errors of their own; they are known by
    their text.

    Raises:
        StorageFullError: the disk or the quota is full.
    """
    try:
        yield
    except StorageFullError:
        raise
    except Exception as error:
        if not _means_full(error):
            raise
        raise StorageFullError(
            compose(
                f"room to write {path}",
                f"a full disk ({_free_bytes(Path(path)):,} bytes free)",
                "free some space or choose a folder on another disk, then run the same again",
            )
        ) from error


def require_space(path: str | Path, need_bytes: int) -> None:
    """Check that the disk of a path has room for so many bytes.

    Raises:
        StorageFullError: it has not.
    """
    free = _free_bytes(Path(path))
    if free < need_bytes:
        raise StorageFullError(
            compose(
                f"{need_bytes:,} free bytes for {path}",
                f"{free:,} free bytes",
                "free some space or choose a folder on another disk",
            )
        )


def list_files(folder: str | Path) -> dict[str, int]:
    """List the regular files below a folder: relative name with forward slashes -> size in bytes.

    Raises:
        IntegrityError: a link, device or pipe lies among them.
    """
    sizes: dict[str, int] = {}
    pending = [("", os.fspath(folder))]
    while pending:
        prefix, place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((name + "/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    got = "a link" if entry.is_symlink() else "a device or pipe"
                    raise IntegrityError(
                        compose(
                            f"only files and folders in {folder}",
                            f"{got} at {name!r}",
                            "replace it by a file",
                        )
                    )
    return dict(sorted(sizes.items()))


def sweep_temporaries(folder: str | Path) -> None:
    """Delete the temporary files that writers killed midway left below a folder."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(TEMPORARY_PREFIX):
                os.unlink(os.path.join(place, name))


def _own_prefix(process: int) -> str:
    """Return how the names of a process's temporary files begin; folders may be shared between machines."""
    return f"{TEMPORARY_PREFIX}{zlib.crc32(platform.node().encode()):08x}-{process}-"


def _sweep_orphans(folder: Path) -> None:
    """Delete the temporary files in a folder whose writer, a process of this machine, has ended."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        number = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")[2].partition("-")[0]
        if not number.isdecimal() or not path.name.startswith(_own_prefix(int(number))):
            continue
        if _has_ended(int(number)):
            path.unlink(missing_ok=True)


def _has_ended(process: int) -> bool:
    if sys.platform == "win32":
        # There, signal 0 would end it.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def sync_tree(folder: str | Path) -> None:
    """Push the files below a folder, and the folders themselves, to the disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(os.path.join(place, name))
        sync_folder(place)


def sync_folder(folder: str | Path) -> None:
    """Push a folder's list of names to the disk, where the system can."""
    if sys.platform != "win32":
        _sync(os.fspath(folder))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _means_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(text in str(error) for text in _FULL_TEXTS)


def _free_bytes(path: Path) -> int:
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except (FileNotFoundError, NotADirectoryError):
            continue
    return 0
