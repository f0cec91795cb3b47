"""Image sets read through Hugging Face datasets: from the hub, or from a folder that it saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.zoo.classes import align_classes, name_classes
from aerogel.zoo.columns import Columns, Table
from aerogel.zoo.gather import gather
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.named import suggest_names
from aerogel.zoo.records import Problems, Record
from aerogel.zoo.request import UNSTATED, Request, list_matches, match_split, require_split


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hugging Face hub, by name and configuration."""

    name: str
    configuration: str | None = None

    def splits(self) -> tuple[str, ...]:
        """List the splits, asking the hub."""
        return list_matches(self.split_names())

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are "split:index".

        Raises:
            DataError: no such dataset or split, no network, unclear columns, or problems in the rows.
            MissingDependencyError: datasets is not installed.
        """
        available = self.split_names()
        chosen = require_split(request.split, available, self.name)
        reference = match_split("train", available) or chosen
        loaded = {split: self.load(split) for split in {chosen, reference}}
        return _read(loaded[chosen], loaded[reference], chosen, request, self.name)

    def split_names(self) -> tuple[str, ...]:
        """List the splits by the names that they have on the hub.

        Raises:
            DataError: no such dataset, or no network.
            MissingDependencyError: datasets is not installed.
        """
        library = _import_datasets()
        try:
            return tuple(library.get_dataset_split_names(self.name, self.configuration))
        except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
            raise self._unavailable(error) from error

    def load(self, split: str) -> Any:
        """Load one split as a dataset, downloading it where it is not cached.

        Raises:
            DataError: no such dataset, or no network.
            MissingDependencyError: datasets is not installed.
        """
        library = _import_datasets()
        try:
            return library.load_dataset(self.name, self.configuration, split=split)
        except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> DataError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        got = f"no such path, and from the hub: {reason}"
        remedy = f"check the name and the network, correct the path, {suggest_names(self.name)}"
        return DataError(compose(f"a path or a dataset called {self.name!r}", got, remedy))


@dataclass(frozen=True)
class SavedDataset:
    """A folder written by `datasets.save_to_disk`, of one split or several."""

    folder: Path

    def splits(self) -> tuple[str, ...]:
        """List the splits; a dataset saved without splits is all training images."""
        return list_matches(self.load())

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are "split:index".

        Raises:
            DataError: damaged folder, no such split, unclear columns, or problems in the rows.
            MissingDependencyError: datasets is not installed.
        """
        available = self.load()
        chosen = require_split(request.split, available, str(self.folder))
        reference = available[match_split("train", available) or chosen]
        return _read(available[chosen], reference, chosen, request, self.folder.resolve().name)

    def load(self) -> dict[str, Any]:
        """Load every split as a dataset, by name.

        Raises:
            DataError: a damaged folder.
            MissingDependencyError: datasets is not installed.
        """
        library = _import_datasets()
        try:
            loaded = library.load_from_disk(str(self.folder))
        except (OSError, ValueError, KeyError, TypeError, library.exceptions.DatasetsError) as error:
            remedy = "save the dataset again with save_to_disk"
            raise DataError(compose(f"a saved dataset in {self.folder}", str(error), remedy)) from error
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _import_datasets() -> ModuleType:
    try:
        return import_module("datasets")
    except ImportError as error:
        remedy = 'pip install "aerogel[condense]"'
        raise MissingDependencyError(compose("the package datasets", "none", remedy)) from error


def _read(data: Any, reference: Any, split: str, request: Request, name: str) -> ImageSet:
    columns = describe(data, name).choose(request)
    class_names = request.class_names or columns.class_names
    if class_names is None:
        class_names = name_classes(reference.unique(columns.label), name)
    return gather(
        _records(data, columns, split),
        class_names,
        request,
        name=name,
        total=len(data),
        problems=Problems(f"{name} ({split})"),
        licence=str(data.info.license or UNSTATED),
        order=align_classes(columns.class_names, class_names, name) if columns.class_names else None,
        stamp=lambda: [name, split, str(data._fingerprint)],
    )


def describe(data: Any, where: str) -> Table:
    """Describe which columns of a dataset may hold images and labels."""
    library = _import_datasets()
    features = data.features
    classes = {n: tuple(f.names) for n, f in features.items() if isinstance(f, library.ClassLabel)}
    images, labels = [], list(classes)
    for column, feature in features.items():
        kind = getattr(feature, "dtype", None)
        if isinstance(feature, library.Image) or kind in ("binary", "large_binary"):
            images.append(column)
        elif isinstance(feature, library.Value) and str(kind).startswith(
            ("int", "uint", "string", "large_string")
        ):
            labels.append(column)
    return Table(where, tuple(features), tuple(images), tuple(labels), classes)


def _records(data: Any, columns: Columns, split: str) -> Iterator[Record]:
    for row, values in enumerate(select_undecoded(data, columns.image, columns.label)):
        yield Record(f"{split}:{row}", values[columns.label], content_of(values[columns.image]))


def select_undecoded(data: Any, image: str, *others: str) -> Any:
    """Select columns of a dataset, its pictures as stored: decoding is ours, and a bad one ends nothing."""
    library = _import_datasets()
    rows = data.select_columns([image, *others]).with_format(None)
    if isinstance(data.features[image], library.Image):
        rows = rows.cast_column(image, library.Image(decode=False))
    return rows


def content_of(picture: Any) -> Any:
    """Return a stored picture's file bytes, else the path of its file, else None."""
    if isinstance(picture, dict):
        path = picture.get("path")
        return picture.get("bytes") or (Path(path) if path else None)
    return picture
