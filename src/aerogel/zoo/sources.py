"""Resolve a source given by path or name, and load labelled images from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from aerogel.core.progress import announce
from aerogel.errors import ConfigError, DataError, compose
from aerogel.zoo.idx import find_idx
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.named import NAMED, name_idx_folder, suggest_names
from aerogel.zoo.request import MEMORY_BYTES, Request, Source, Split

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?")


def load_images(
    source: str | Path,
    *,
    split: Split = "train",
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    memory_bytes: int = MEMORY_BYTES,
) -> ImageSet:
    """Load one split of a labelled image set as uint8 [N, C, H, W].

    source: an existing path (image folder, folder of IDX files, parquet file or folder, folder written by
    `datasets.save_to_disk`, webdataset tar shards: a file, a folder, or a pattern such as
    ``shards/train-*.tar``); else "digits" or "fashion-mnist"; else a dataset name of the Hugging Face
    hub, optionally "owner/name:config".
    size: scale the short side to this many pixels and cut the centre square; None needs equal sizes.
    channels: 1 or 3; None keeps grey sets grey.
    class_names: the class list to hold the source to, in the order of the labels; None takes the source's.
    memory_bytes: with a size, a set of more bytes of pixels is decoded once into a file in the user's cache,
    which is mapped; it has channels 3 if None.
    skip_bad: leave out unusable pictures, reporting each, where otherwise any of them refuses the source.

    Raises:
        DataError: nothing found, or any problem in the source, all listed together.
        ConfigError: arguments out of range.
        MissingDependencyError: the source needs a package that is not installed.
    """
    request = Request(
        split=split,
        size=size,
        channels=channels,
        image_column=image_column,
        label_column=label_column,
        class_names=None if class_names is None else tuple(class_names),
        skip_bad=skip_bad,
        memory_bytes=memory_bytes,
    )
    return resolve_source(source).read(request).check()


def open_images(source: str | Path, *, size: int, split: Split = "train", **options: Any) -> ImageSet:
    """Open one split of a labelled image set without holding its pixels in memory.

    Pictures are decoded and scaled to `size` once, into a file of one byte a value in the user's cache
    (``AEROGEL_CACHE`` moves it; the room that it takes is asked for first), and read from there. A killed
    decoding goes on where it was; a finished one is verified and used again while the source is unchanged.
    options: as for `load_images`.

    Raises:
        DataError, ConfigError, MissingDependencyError: as for `load_images`.
        IntegrityError: the file of pixels was changed.
        StorageFullError: it would not fit on the disk.
    """
    return load_images(source, split=split, size=size, **{**options, "memory_bytes": 0})


def load_splits(
    source: str | Path, *, held_out: float = 0.2, seed: int = 0, **options: Any
) -> tuple[ImageSet, ImageSet]:
    """Load (training, test) images; without a test split, hold out a share of each class and say so.

    held_out: share of the training images to test on where the source has no test split.
    options: as for `load_images`, but not split.

    Raises:
        DataError, ConfigError, MissingDependencyError: as for `load_images`.
    """
    if not 0.0 < held_out < 1.0:
        raise ConfigError(compose("held_out between 0 and 1", repr(held_out), "pass for example 0.2"))
    train = load_images(source, split="train", **options)
    if "test" not in resolve_source(source).splits():
        announce(f"{source}: no test split, so {held_out:.0%} of the training images are held out as one.")
        return train.split(held_out, seed, "held-out")
    alike = {**options, "class_names": train.class_names, "channels": train.shape[0]}
    test = load_images(source, split="test", **alike)
    if train.shape != test.shape:
        got = f"{list(train.shape)} for training and {list(test.shape)} for testing"
        raise DataError(compose(f"images [C, H, W] of one shape in {source}", got, "pass size="))
    return train, test


def resolve_source(source: str | Path) -> Source:
    """Find what `source` stands for: an existing path, then a known name, then a hub dataset name.

    Raises:
        DataError: it is none of these, or a path without images.
    """
    path = Path(source).expanduser()
    if path.exists():
        if str(source) in NAMED:
            announce(f"{source}: reading the folder {path.resolve()}, which goes before the named source.")
        return _resolve_path(path)
    if isinstance(source, str) and source in NAMED:
        return NAMED[source]()
    if isinstance(source, str) and HUB_NAME.fullmatch(source) and not _is_mistyped(source):
        from aerogel.zoo.hub import HubDataset

        name, _, configuration = source.partition(":")
        return HubDataset(name, configuration or None)
    if "*" in str(source):
        return _resolve_pattern(path)
    raise DataError(
        compose(
            "an existing path or the name of a source",
            f"{str(source)!r}",
            f"correct the path, {suggest_names(source)}",
        )
    )


def _is_mistyped(source: str) -> bool:
    """Tell a file name or a slip in a known name from a hub name, to spare the wait for the hub's no."""
    return source.endswith(".parquet") or bool(get_close_matches(source, NAMED, 1, cutoff=0.8))


def _resolve_pattern(pattern: Path) -> Source:
    from aerogel.zoo.shards import TarShards

    files = sorted(path for path in pattern.parent.glob(pattern.name) if path.is_file())
    odd = [path.name for path in files if path.suffix != ".tar"]
    if odd or not files:
        got = f"also {', '.join(odd[:3])}" if odd else "none"
        raise DataError(compose(f"tar files at {pattern}", got, "correct the pattern, or give a folder"))
    return TarShards(tuple(files), str(pattern))


def _resolve_path(path: Path) -> Source:
    if path.suffix == ".tar" and path.is_file():
        from aerogel.zoo.shards import TarShards

        return TarShards((path,), str(path))
    if not path.is_dir() and not (path.is_file() and path.suffix == ".parquet"):
        remedy = "give the folder that holds the images, or a .parquet or .tar file"
        raise DataError(
            compose("an image folder, a folder of IDX files or parquet", f"the file {path}", remedy)
        )
    if any(find_idx(path, split, "images") for split in ("train", "test")):
        return name_idx_folder(path.resolve())
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        from aerogel.zoo.hub import SavedDataset

        return SavedDataset(path)
    shards = sorted(path.glob("*.tar"))
    if shards:
        from aerogel.zoo.shards import TarShards

        return TarShards(tuple(shards), str(path))
    from aerogel.zoo.parquet import ParquetFiles, find_parquet

    if find_parquet(path):
        return ParquetFiles(path)
    from aerogel.zoo.imagefolder import ImageFolder

    return ImageFolder(path)
