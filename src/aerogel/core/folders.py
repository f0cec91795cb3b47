"""Result folders that appear whole or not at all, and can prove later that they are unchanged."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aerogel.core.canonical import plain_value, show_value
from aerogel.core.environment import versions
from aerogel.core.files import (
    list_files,
    require_space,
    sha256_file,
    storage_errors,
    sync_folder,
    sync_tree,
    write_bytes_atomic,
    write_text_atomic,
)
from aerogel.core.locks import hold_lock
from aerogel.core.manifests import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    FileEntry,
    Manifest,
    find_name_fault,
    read_manifest,
)
from aerogel.errors import DataError, FolderExistsError, IntegrityError, MismatchError, compose

__all__ = [
    "MANIFEST_NAME",
    "FileEntry",
    "Manifest",
    "create_folder",
    "put_in_place",
    "read_manifest",
    "recover_folder",
    "require_replaceable",
    "resolve_target",
    "seal_folder",
    "sha256_file",
    "storage_errors",
    "verify_folder",
    "write_bytes_atomic",
    "write_text_atomic",
]

CARD_NAME = "README.md"
_SHOWN = 20


def seal_folder(
    folder: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    seed: int | None = None,
    command: str | None = None,
    exclude: Collection[str] = (),
) -> Manifest:
    """Hash every file of a folder and write its manifest last; equal inputs give equal bytes.

    Raises:
        DataError: config or facts have no JSON form, or a file has a name that is not portable.
        IntegrityError: a link, device or pipe lies in the folder.
        StorageFullError: the disk is full.
    """
    names = [name for name in list_files(folder) if name != MANIFEST_NAME and name not in exclude]
    faults = [f"{name!r} {fault}" for name in names if (fault := find_name_fault(name))]
    if faults:
        raise DataError(compose("portable file names", _list(faults), "rename the files"))
    place = Path(folder)
    files = {name: FileEntry((place / name).stat().st_size, sha256_file(place / name)) for name in names}
    manifest = Manifest(
        kind=kind,
        schema=MANIFEST_SCHEMA,
        files=files,
        versions=versions(),
        seed=seed,
        command=command,
        config=plain_value(config, "config"),
        facts=plain_value(facts, "facts"),
    )
    with storage_errors(folder):
        sync_tree(folder)
        write_text_atomic(place / MANIFEST_NAME, manifest.to_json())
    return manifest


def verify_folder(
    folder: str | Path,
    kind: str | None = None,
    *,
    allow_extra: bool = False,
    remedy: str = "make or copy the folder again",
) -> Manifest:
    """Check that a folder holds exactly the files of its manifest, unchanged; returns the manifest.

    With ``allow_extra`` files that the manifest does not list, such as those a hosting service adds, are let
    be. What a card, `CARD_NAME`, says is not looked at: people write in it before they publish. ``remedy``
    is what an error tells to do about files that differ.

    Raises:
        DataError: there is no folder at the path.
        IntegrityError: the manifest or a file is damaged, missing or too many; all that differ are named.
        MismatchError: the folder is sound but of another kind.
    """
    manifest = read_manifest(folder)
    if kind is not None and manifest.kind != kind:
        raise MismatchError(
            compose(
                f"a folder of kind {kind!r} at {folder}",
                f"kind {show_value(manifest.kind)}",
                "pass the folder of that kind",
            )
        )
    sizes = _listed_sizes(folder, manifest) if allow_extra else list_files(folder)
    sizes.pop(MANIFEST_NAME, None)
    faults = [f"{name!r} is missing" for name in manifest.files if name not in sizes]
    faults += [f"{name!r} is not in the manifest" for name in sizes if name not in manifest.files]
    for name, entry in manifest.files.items():
        if name not in sizes or name == CARD_NAME:
            continue
        if sizes[name] != entry.bytes:
            faults.append(f"{name!r} has {sizes[name]:,} bytes instead of {entry.bytes:,}")
        elif sha256_file(Path(folder) / name) != entry.sha256:
            faults.append(f"{name!r} has other content (SHA-256 differs)")
    if faults:
        raise IntegrityError(compose(f"the files of the manifest in {folder}", _list(faults), remedy))
    return manifest


@contextmanager
def create_folder(
    path: str | Path, *, overwrite: bool = False, need_bytes: int | None = None
) -> Iterator[Path]:
    """Give a block an empty folder to fill, which takes its name only when the block ends well.

    The folder is a hidden sibling until then; an error in the block removes it. With ``overwrite`` an earlier
    result is deleted after the new one stands in its place. What is deleted has a manifest and no other files
    than those it lists, or is empty.

    Raises:
        FolderExistsError: something lies at the path, and is not to be or must not be deleted.
        FolderConflictError: another run is working in the folder.
        StorageFullError: the disk is full, or has less than ``need_bytes`` free.
    """
    target = resolve_target(path)
    with hold_lock(target):
        recover_folder(target)
        require_replaceable(target, overwrite=overwrite)
        if need_bytes is not None:
            require_space(target, need_bytes)
        fresh = _sibling(target, "new")
        _remove_tree(fresh)
        try:
            with storage_errors(target):
                fresh.mkdir()
                yield fresh
                sync_tree(fresh)
                put_in_place(fresh, target, overwrite=overwrite)
        finally:
            _remove_tree(fresh)


def put_in_place(fresh: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished folder to its name, swapping out an earlier result; the caller holds the lock.

    A crash between the steps leaves either the old or the new folder whole, and recover_folder tidies up.

    Raises:
        FolderExistsError: something lies at the target, and is not to be or must not be deleted.
    """
    require_replaceable(target, overwrite=overwrite)
    swap = os.path.lexists(target) and _is_filled(target)
    if swap:
        os.rename(target, _sibling(target, "old"))
        sync_folder(target.parent)
    try:
        os.rename(fresh, target)
    except OSError as error:
        recover_folder(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _exists(target, "something that appeared meanwhile", "choose another folder") from error
        raise
    sync_folder(target.parent)
    if swap:
        recover_folder(target)


def recover_folder(target: Path) -> None:
    """Undo or complete a replacement that a crash interrupted; the caller holds the lock."""
    old, trash = _sibling(target, "old"), _sibling(target, "trash")
    _remove_tree(trash)
    if not old.is_dir():
        return
    if os.path.lexists(target):
        os.rename(old, trash)
        _remove_tree(trash)
    else:
        os.rename(old, target)
        sync_folder(target.parent)


def require_replaceable(target: Path, *, overwrite: bool) -> None:
    """Check that a result may take a path: it is free, an empty folder, or a result to be overwritten.

    Raises:
        FolderExistsError: it may not.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise _exists(target, "a file", "choose another path")
    if not _is_filled(target):
        return
    try:
        manifest = read_manifest(target)
        extra = [name for name in list_files(target) if name != MANIFEST_NAME and name not in manifest.files]
    except IntegrityError as error:
        raise _exists(
            target, "a folder that is not a sound result", "choose another, or delete it yourself"
        ) from error
    if not overwrite:
        raise _exists(
            target, f"a result of kind {manifest.kind!r}", "choose another folder, or allow overwriting it"
        )
    if extra:
        raise _exists(
            target, f"a result and files of yours: {_list(extra)}", "move these away, or choose another"
        )


def resolve_target(path: str | Path) -> Path:
    """Make a path absolute and follow a link at its end, so that the link itself is never replaced.

    Raises:
        DataError: the path has no name to create, as "/" or "..".
    """
    target = Path(os.path.abspath(path))
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    if not target.name:
        raise DataError(compose("the path of a folder to create", str(path), "add a name to it"))
    return target


def _listed_sizes(folder: str | Path, manifest: Manifest) -> dict[str, int]:
    place = Path(folder)
    sizes = {}
    for name in manifest.files:
        parents = [place / parent for parent in Path(name).parents]
        if any(parent.is_symlink() for parent in parents[:-1]):
            raise IntegrityError(
                compose(
                    f"only files and folders in {folder}",
                    f"a link on the way to {name!r}",
                    "put a folder there",
                )
            )
        if os.path.lexists(place / name):
            sizes[name] = os.lstat(place / name).st_size
    return sizes


def _is_filled(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def _sibling(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.aerogel-{role}")


def _remove_tree(folder: Path) -> None:
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def _exists(target: Path, got: str, remedy: str) -> FolderExistsError:
    return FolderExistsError(compose(f"nothing or an empty folder at {target}", got, remedy))


def _list(items: list[str]) -> str:
    shown = ", ".join(items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"
