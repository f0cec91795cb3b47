"""Image folders: root/class/* or root/{train,test}/class/*, the class being the folder's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aerogel.zoo.gather import gather
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.records import Problems, Record
from aerogel.zoo.request import ALIASES, Request, list_matches, match_split, require_split

JUNK = {"Thumbs.db", "desktop.ini"}
LOOSE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SPLIT_NAMES = {name for names in ALIASES.values() for name in names}


@dataclass(frozen=True)
class ImageFolder:
    """A folder of image files, one folder per class, with or without folders for the splits above."""

    root: Path

    def splits(self) -> tuple[str, ...]:
        """List the splits; a folder without split folders is all training images."""
        return list_matches(self._branches())

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are paths relative to the root. Classes are sorted by name.

        The test split is held to the class list of the training split where there is one.

        Raises:
            DataError: no such split, or every problem of the files listed together.
        """
        branches = self._branches()
        branch = branches[require_split(request.split, branches, str(self.root))]
        reference = branches.get(match_split("train", branches) or "", branch)
        class_names = request.class_names or tuple(folder.name for folder in _visible_folders(reference))
        problems = Problems(str(branch))
        found = {folder.name: folder for folder in _visible_folders(branch)}
        for name in class_names:
            if name not in found:
                problems.add(f"class {name!r} has no folder")
        for name in found:
            if name not in class_names:
                problems.add(f"folder {name!r} is not in the class list of {len(class_names)}")
        _note_loose(branch, problems)
        records = [
            Record(file.relative_to(self.root).as_posix(), name, file)
            for name in class_names
            if name in found
            for file in _walk(found[name], problems)
        ]
        title = self.root.resolve().name
        return gather(
            records,
            class_names,
            request,
            name=title,
            total=len(records),
            problems=problems,
            stamp=lambda: [_stamp(record) for record in records],
        )

    def _branches(self) -> dict[str, Path]:
        """Map split names to folders; the root itself is "train" unless all its folders are splits."""
        folders = {folder.name: folder for folder in _visible_folders(self.root)}
        if not folders or not folders.keys() <= SPLIT_NAMES:
            return {"train": self.root}
        if not any(_visible_folders(folder) for folder in folders.values()):
            return {"train": self.root}
        return folders


def _stamp(record: Record) -> list[Any]:
    found = Path(record.content).stat() if isinstance(record.content, Path) else None
    return [record.identifier, found and found.st_size, found and found.st_mtime_ns]


def _visible_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _note_loose(root: Path, problems: Problems) -> None:
    for path in sorted(root.iterdir()):
        if path.is_file() and path.suffix.lower() in LOOSE_SUFFIXES and not path.name.startswith("."):
            problems.add(f"{path.name}: an image outside the class folders")


def _walk(folder: Path, problems: Problems) -> Iterator[Path]:
    """Yield the files below a class folder, sorted, without hidden files and file managers' leavings."""
    files = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                problems.add(f"{Path(parent) / name}: a linked folder, which is not followed")
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent) / name for name in names if not name.startswith(".") and name not in JUNK]
    yield from sorted(files)
