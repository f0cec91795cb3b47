"""Photos without labels, read one by one: from a folder, parquet or a Hugging Face dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aerogel.core.stages import is_made
from aerogel.errors import ConfigError, DataError, compose
from aerogel.zoo.decode import PictureError, decode_picture, read_size
from aerogel.zoo.imagefolder import JUNK
from aerogel.zoo.request import SMALLEST_PX, require_split
from aerogel.zoo.selection import OTHER_FILE, Skipped, select_usable
from aerogel.zoo.sources import HUB_NAME

SAMPLES = "aerogel/samples"
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
Check = Literal["decode", "header"]


@dataclass(frozen=True)
class Photo:
    """Hold one decoded photo: uint8 [H, W, 3] in RGB, upright, and an id that leads back to its file."""

    identifier: str
    image: NDArray[np.uint8]


class PhotoSource(Protocol):
    """A place that undecoded photos can be read from by number."""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The photos' ids, in order."""
        ...

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out while listing, and why."""
        ...

    def read(self, number: int) -> bytes | Path | None:
        """Return a photo's file bytes or its file; None where nothing is stored."""
        ...


@dataclass(frozen=True)
class Photos:
    """The photos chosen from a source, in a fixed order; each is decoded when it is asked for.

    ``skipped`` says what was left out, and why.
    """

    name: str
    source: PhotoSource
    numbers: tuple[int, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the photos, in order."""
        return tuple(self.source.identifiers[number] for number in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Photo:
        """Decode one photo.

        Raises:
            PictureError: it was changed since it was chosen, or only its header was looked at then.
        """
        number = self.numbers[index]
        identifier = self.source.identifiers[number]
        try:
            return Photo(identifier, decode_photo(self.source.read(number)))
        except PictureError as error:
            raise PictureError(f"{identifier}: {error}") from error

    def __iter__(self) -> Iterator[Photo]:
        return (self[index] for index in range(len(self)))


def open_photos(
    source: str | Path | Sequence[str | Path],
    *,
    limit: int | None = None,
    seed: int | None = None,
    smallest_px: int = 32,
    image_column: str | None = None,
    check: Check = "decode",
) -> Photos:
    """Find photos, look at each before work starts, and read them later one by one.

    source: a folder, searched with its sub-folders but without hidden files; a list of image files; a parquet
    file or a folder of them; a folder written by `datasets.save_to_disk`, with all its splits;
    "aerogel/samples", six photos free of copyright that ship; else a dataset of the Hugging Face hub,
    "owner/name" or "owner/name:config", of which the training split is read.
    limit: how many photos to take; None takes all. The first ones in the order of their names, or with a
    seed a random sample of the whole; both come in the order of their names.
    smallest_px: leave out photos with a shorter side than this many pixels.
    image_column: the column to read, where a table has several that hold images.
    check: "decode" decodes every photo once, so that a damaged one is found now and not after hours; "header"
    is faster and finds less.

    Raises:
        DataError: nothing found, no usable photo, or fewer than the limit; it lists what was left out.
        ConfigError: arguments out of range.
        MissingDependencyError: the source needs a package that is not installed.
    """
    if check not in ("decode", "header"):
        raise ConfigError(compose("check 'decode' or 'header'", repr(check), "pass one of them"))
    if smallest_px < 1:
        raise ConfigError(compose("smallest_px of at least 1", repr(smallest_px), "pass another"))
    found, name = _resolve(source, image_column)

    def look(number: int) -> None:
        content = found.read(number)
        check_photo(content, smallest_px)
        if check == "decode" and content is not None:
            # The smallest size lets a JPEG decoder skip most of its work, and still reads the whole file.
            decode_picture(content, size=SMALLEST_PX)

    numbers, skipped = select_usable(
        found.identifiers, look, limit=limit, seed=seed, where=name, skipped=found.skipped
    )
    return Photos(name, found, numbers, skipped)


def check_photo(content: bytes | Path | None, smallest_px: int) -> None:
    """Look at a photo's header.

    Raises:
        PictureError: nothing stored, no readable header, or a side shorter than ``smallest_px``.
    """
    if content is None:
        raise PictureError("no picture stored")
    height, width = read_size(content)
    if min(height, width) < smallest_px:
        raise PictureError(f"{width}x{height} px, smaller than {smallest_px} px")


def decode_photo(content: bytes | Path | None) -> NDArray[np.uint8]:
    """Decode a photo to uint8 [H, W, 3]; see `decode_picture`.

    Raises:
        PictureError: nothing stored, or not a readable picture.
    """
    if content is None:
        raise PictureError("no picture stored")
    return np.ascontiguousarray(decode_picture(content, channels=3).transpose(1, 2, 0))


@dataclass(frozen=True)
class PhotoFiles:
    """Image files and their ids, and what else was found among them."""

    files: tuple[Path, ...]
    identifiers: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()

    def read(self, number: int) -> Path:
        """Return one file."""
        return self.files[number]


def find_photos(root: Path) -> PhotoFiles:
    """List the image files of a folder and its sub-folders, by suffix, sorted; other files are skipped.

    Ids are paths relative to the folder.

    Hidden files, file managers' leavings, linked folders and those that Aerogel made, a run's pictures among
    them, are not looked at; the latter two are reported, and so are names that are no UTF-8.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in tuple(folders):
            inner = Path(parent) / name
            if inner.is_symlink():
                skipped.append(Skipped(_relative(inner, root), "a linked folder, which is not followed"))
            elif is_made(inner):
                skipped.append(Skipped(_relative(inner, root), "a folder that Aerogel made"))
                folders.remove(name)
        for name in names:
            file = Path(parent) / name
            if name.startswith(".") or name in JUNK:
                continue
            try:
                str(file).encode()
            except UnicodeEncodeError:
                shown = os.fsencode(_relative(file, root)).decode(errors="backslashreplace")
                skipped.append(Skipped(shown, "a name that is no UTF-8"))
                continue
            if file.suffix.lower() in PHOTO_SUFFIXES:
                files.append(file)
            else:
                skipped.append(Skipped(_relative(file, root), OTHER_FILE))
    files.sort()
    return PhotoFiles(tuple(files), _name_files(files, root), tuple(sorted(skipped, key=str)))


def _list_files(paths: Sequence[Any]) -> PhotoFiles:
    """Take the files of a list, each once.

    Raises:
        DataError: something else than paths is listed.
    """
    files: dict[str, Path] = {}
    twice = []
    for each in paths:
        if not isinstance(each, (str, os.PathLike)):
            remedy = "pass the paths of files, a folder, parquet, or what open_photos gave"
            raise DataError(compose("a list of image files", f"{type(each).__name__} in it", remedy))
        file = Path(each).expanduser()
        if files.setdefault(_relative(file, Path()), file) is not file:
            twice.append(Skipped(_relative(file, Path()), "listed before"))
    return PhotoFiles(tuple(files.values()), tuple(files), tuple(twice))


class _ParquetPhotos:
    def __init__(self, path: Path, image_column: str | None) -> None:
        from aerogel.zoo.parquet import describe
        from aerogel.zoo.rows import ParquetRows

        self._rows = ParquetRows(
            path, lambda file, schema: [describe(file, schema).choose_image(image_column)]
        )
        self.identifiers = self._rows.identifiers
        self.skipped: tuple[Skipped, ...] = ()

    def read(self, number: int) -> bytes | Path | None:
        (picture,) = self._rows.read(number).values()
        content = picture.get("bytes") if isinstance(picture, dict) else picture
        return content if isinstance(content, bytes) else None


class _DatasetPhotos:
    def __init__(self, splits: dict[str, Any], name: str, image_column: str | None) -> None:
        from aerogel.zoo.hub import describe, select_undecoded

        self._places: list[tuple[Any, str, int]] = []
        identifiers: list[str] = []
        for split, data in splits.items():
            column = describe(data, name).choose_image(image_column)
            rows = select_undecoded(data, column)
            self._places += [(rows, column, row) for row in range(len(rows))]
            identifiers += [f"{split}:{row}" for row in range(len(rows))]
        self.identifiers = tuple(identifiers)
        self.skipped: tuple[Skipped, ...] = ()

    def read(self, number: int) -> bytes | Path | None:
        from aerogel.zoo.hub import content_of

        rows, column, row = self._places[number]
        content: bytes | Path | None = content_of(rows[row][column])
        return content


def _resolve(source: Any, image_column: str | None) -> tuple[PhotoSource, str]:
    if isinstance(source, Sequence) and not isinstance(source, str):
        return _list_files(source), f"the list of {len(source)} files"
    path = Path(source).expanduser()
    name = str(source)
    if name == SAMPLES and not path.exists():
        path = Path(__file__).parent / "samples"
    if path.is_dir():
        return _resolve_folder(path, image_column), name
    if path.is_file():
        if path.suffix == ".parquet":
            return _ParquetPhotos(path, image_column), name
        return PhotoFiles((path,), _name_files([path], path.parent)), name
    if isinstance(source, str) and HUB_NAME.fullmatch(source) and "/" in source:
        from aerogel.zoo.hub import HubDataset

        hub_name, _, configuration = source.partition(":")
        dataset = HubDataset(hub_name, configuration or None)
        split = require_split("train", dataset.split_names(), hub_name)
        return _DatasetPhotos({split: dataset.load(split)}, hub_name, image_column), name
    expected = "an existing folder, an image or parquet file, or a dataset of the hub (owner/name)"
    raise DataError(compose(expected, repr(name), "correct the path"))


def _resolve_folder(path: Path, image_column: str | None) -> PhotoSource:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        from aerogel.zoo.hub import SavedDataset

        return _DatasetPhotos(SavedDataset(path).load(), str(path), image_column)
    files = find_photos(path)
    if files.files:
        return files
    from aerogel.zoo.parquet import find_parquet

    return _ParquetPhotos(path, image_column) if find_parquet(path) else files


def _name_files(files: Sequence[Path], root: Path) -> tuple[str, ...]:
    return tuple(_relative(file, root) for file in files)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
