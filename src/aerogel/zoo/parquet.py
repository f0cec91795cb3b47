"""Parquet files with a column of image file bytes and a label column, as the Hugging Face hub has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.zoo.classes import align_classes, name_classes
from aerogel.zoo.columns import Columns, Table
from aerogel.zoo.gather import gather
from aerogel.zoo.imageset import ImageSet
from aerogel.zoo.records import Problems, Record
from aerogel.zoo.request import ALIASES, Request, list_matches, match_split, require_split

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256


@dataclass(frozen=True)
class ParquetFiles:
    """One parquet file, or a folder of them whose names or folders say the split."""

    path: Path

    def splits(self) -> tuple[str, ...]:
        """List the splits; files whose names say none are training images."""
        return list_matches(self._files())

    def read(self, request: Request) -> ImageSet:
        """Read one split; ids are "file:row". The class list is declared, or taken from the training labels.

        Raises:
            DataError: damaged files, unclear columns, or every problem of the rows listed together.
            MissingDependencyError: pyarrow is not installed.
        """
        files = self._files()
        chosen = files[require_split(request.split, files, str(self.path))]
        reference = files.get(match_split("train", files) or "", chosen)
        tables = {file: open_parquet(file) for file in {*chosen, *reference}}
        columns = describe(reference[0], tables[reference[0]].schema_arrow).choose(request)
        _require_columns(tables, columns)
        class_names = request.class_names or columns.class_names
        if class_names is None:
            class_names = name_classes(_read_labels(reference, tables, columns), str(self.path))
        declared = _declared_classes(tables[chosen[0]].schema_arrow.metadata or {}).get(columns.label)
        return gather(
            self._records(chosen, tables, columns),
            class_names,
            request,
            name=self.path.resolve().stem,
            total=sum(tables[file].metadata.num_rows for file in chosen),
            problems=Problems(str(self.path)),
            order=align_classes(declared, class_names, str(self.path)) if declared else None,
            stamp=lambda: [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in chosen],
        )

    def _files(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for file in find_parquet(self.path):
            inside = file.relative_to(self.path) if file != self.path else Path(file.name)
            files.setdefault(split_of(inside), []).append(file)
        return files

    def _records(self, files: list[Path], tables: dict[Path, Any], columns: Columns) -> Iterator[Record]:
        for file in files:
            prefix = file.name if file == self.path else file.relative_to(self.path).as_posix()
            row = 0
            for batch in _batches(file, tables[file], [columns.image, columns.label]):
                pictures = batch.column(columns.image).to_pylist()
                for picture, label in zip(pictures, batch.column(columns.label).to_pylist(), strict=True):
                    content = picture.get("bytes") if isinstance(picture, dict) else picture
                    yield Record(f"{prefix}:{row}", label, content)
                    row += 1


def find_parquet(path: Path) -> list[Path]:
    """List a parquet file itself, or those in a folder and its sub-folders, sorted."""
    if path.is_file():
        return [path]
    inside = (file.relative_to(path) for file in path.rglob("*.parquet"))
    return sorted(path / f for f in inside if not any(part.startswith(".") for part in f.parts))


def split_of(inside: Path) -> str:
    """Return the split that a path inside a source names, by a folder or a word of the file's name."""
    parts = [*inside.parts[:-1], *re.split(r"[-_.]", inside.stem)]
    known = {alias: alias for aliases in ALIASES.values() for alias in aliases}
    return next((known[part.lower()] for part in parts if part.lower() in known), "train")


def open_parquet(file: Path) -> Any:
    """Open a parquet file, reading no more than its footer.

    Raises:
        DataError: a damaged file.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        remedy = 'pip install "aerogel[condense]"'
        raise MissingDependencyError(compose("pyarrow to read parquet", "none", remedy)) from error
    try:
        return parquet.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from error


def _batches(file: Path, table: Any, names: list[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from table.iter_batches(batch_size=BATCH, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from error


def _read_labels(files: list[Path], tables: dict[Path, Any], columns: Columns) -> list[int | str | None]:
    name = columns.label
    batches = (batch for file in files for batch in _batches(file, tables[file], [name]))
    return [value for batch in batches for value in batch.column(name).unique().to_pylist()]


def _require_columns(tables: dict[Path, Any], columns: Columns) -> None:
    for file, table in tables.items():
        missing = {columns.image, columns.label} - set(table.schema_arrow.names)
        if missing:
            got = f"{file} without {', '.join(sorted(missing))}"
            raise DataError(compose("the same columns in all parquet files", got, "take that file out"))


def describe(file: Path, schema: pa.Schema) -> Table:
    """Describe which columns of a parquet file may hold images and labels."""
    import pyarrow as pa

    def holds_labels(kind: pa.DataType) -> bool:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    return Table(
        str(file),
        tuple(schema.names),
        tuple(f.name for f in schema if holds_images(f.type)),
        tuple(f.name for f in schema if holds_labels(f.type)),
        _declared_classes(schema.metadata or {}),
    )


def holds_images(kind: pa.DataType) -> bool:
    """Tell whether a column's type may hold image files: bytes, or a struct with bytes."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _declared_classes(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Read class names from the metadata that Hugging Face datasets writes; other metadata gives none."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        named = {column: feature.get("names") for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {c: tuple(map(str, names)) for c, names in named.items() if isinstance(names, list) and names}


def damaged(file: Path, error: Exception) -> DataError:
    """Compose the error for a parquet file that cannot be read."""
    return DataError(compose(f"a whole parquet file at {file}", str(error), "fetch or write the file again"))
