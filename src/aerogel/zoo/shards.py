"""Tar shards as webdataset writes them: files of one name before the first dot are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from aerogel.errors import DataError, compose
from aerogel.zoo.classes import name_classes
from aerogel.zoo.columns import LABEL_NAMES
from aerogel.zoo.gather import gather
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.parquet import split_of
from aerogel.zoo.records import Problems, Record
from aerogel.zoo.request import Request, list_matches, match_split, require_split

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "tif", "tiff", "gif")
LABEL_ENDINGS = ("cls", "json")
_LARGEST_LABEL = 2**20
_LARGEST_IMAGE = 2**28


@dataclass(frozen=True)
class Sample:
    """Say where a picture lies in a shard: its first byte and its length, with its id and its label."""

    shard: Path
    start: int
    length: int
    identifier: str
    label: int | str | None


@dataclass(frozen=True)
class TarShards:
    """Tar files whose names say the split; those whose names say none are training images.

    A sample is a picture (.jpg, .png, ...) and a label beside it: .cls, a class number or name, or .json, an
    object with a field such as "label". Nothing is unpacked, links are not followed.
    """

    files: tuple[Path, ...]
    where: str

    def splits(self) -> tuple[str, ...]:
        """List the splits."""
        return list_matches(self._files())

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are "shard:key". The class list is taken from the training labels.

        Raises:
            DataError: no such split, a damaged shard, or every problem of the samples listed together.
        """
        files = self._files()
        chosen = files[require_split(request.split, files, self.where)]
        reference = files.get(match_split("train", files) or "", chosen)
        problems = Problems(self.where)
        samples = [each for file in chosen for each in list_samples(file, request.label_column, problems)]
        class_names = request.class_names
        if class_names is None:
            named = samples
            if reference != chosen:
                named = [
                    each for file in reference for each in list_samples(file, request.label_column, problems)
                ]
            class_names = name_classes([each.label for each in named], self.where)
        return gather(
            read_samples(samples),
            class_names,
            request,
            name=Path(self.where).name.split("*")[0].rstrip("-_.") or "shards",
            total=len(samples),
            problems=problems,
            stamp=lambda: [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in chosen],
        )

    def _files(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for file in self.files:
            files.setdefault(split_of(Path(file.name)), []).append(file)
        return files


def list_samples(shard: Path, field: str | None, problems: Problems) -> Iterator[Sample]:
    """Find the samples of a shard by its headers and labels, without reading pictures.

    ``field`` names the field of a .json label; None is the first of the usual names.

    Raises:
        DataError: the shard is damaged.
    """
    try:
        with tarfile.open(shard, "r:") as archive:
            yield from _walk(archive, shard, field, problems)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            compose(f"a whole, uncompressed tar file at {shard}", str(error), "fetch or write the file again")
        ) from error


def _walk(archive: tarfile.TarFile, shard: Path, field: str | None, problems: Problems) -> Iterator[Sample]:
    key: str | None = None
    picture: tarfile.TarInfo | None = None
    labels: dict[str, bytes] = {}

    def close() -> Iterator[Sample]:
        if key is None or (picture is None and not labels):
            return
        name = f"{shard.name}:{key}"
        if picture is None:
            problems.add(f"{name}: no picture")
            return
        yield Sample(shard, picture.offset_data, picture.size, name, _read_label(labels, field))

    for member in archive:
        cast(Any, archive).members = []  # else the headers of all files before this one stay in memory
        if member.isdir():
            continue
        fault = _find_fault(member)
        if fault:
            problems.add(f"{shard.name}:{member.name}: {fault}")
            continue
        path = PurePosixPath(member.name)
        stem, _, ending = path.name.partition(".")
        own = (path.parent / stem).as_posix()
        if own != key:
            yield from close()
            key, picture, labels = own, None, {}
        ending = ending.lower()
        if ending in IMAGE_ENDINGS:
            picture = member
        elif ending in LABEL_ENDINGS:
            stream = archive.extractfile(member)
            labels[ending] = stream.read(_LARGEST_LABEL) if stream else b""
    yield from close()


def _find_fault(member: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        return "no plain file, such as a link, which is not followed"
    if path.is_absolute() or ".." in path.parts:
        return "a name that leads out of the shard"
    if member.size > (_LARGEST_LABEL if path.name.endswith(LABEL_ENDINGS) else _LARGEST_IMAGE):
        return f"{member.size:,} bytes, which is no picture or label"
    return None


def _read_label(labels: dict[str, bytes], field: str | None) -> int | str | None:
    """Return the class number or name of a sample, or None for one without."""
    try:
        if "cls" in labels and field is None:
            text = labels["cls"].decode("utf-8").strip()
            return int(text) if text.isdecimal() else text or None
        found = json.loads(labels["json"])
        names = LABEL_NAMES if field is None else (field,)
        value = next(found[name] for name in names if name in found)
    except (KeyError, StopIteration, ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) or type(value) is int else None


def read_samples(samples: Sequence[Sample]) -> Iterator[Record]:
    """Read the pictures of samples, shard by shard."""
    opened: Path | None = None
    stream = None
    try:
        for each in samples:
            if each.shard != opened:
                if stream is not None:
                    stream.close()
                stream, opened = open(each.shard, "rb"), each.shard  # noqa: SIM115 - closed below
            if stream is not None:
                stream.seek(each.start)
                yield Record(each.identifier, each.label, stream.read(each.length))
    finally:
        if stream is not None:
            stream.close()
