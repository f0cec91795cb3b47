"""Read single rows of parquet files in any order, without holding the files in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from aerogel.errors import DataError, compose
from aerogel.zoo.parquet import damaged, find_parquet, open_parquet

KEPT_BYTES = 2**29


class ParquetRows:
    """Rows of one parquet file or of a folder of them, sorted by file name; ids are "file:row".

    Files are stored in groups of rows, and a group is the least that can be read. Those read last are kept,
    up to half a gigabyte: in order, every group is read once; at random in a larger set, again and again,
    which a folder of pictures spares. Several threads may read at a time.
    """

    def __init__(self, path: Path, choose: Callable[[Path, Any], Sequence[str]]) -> None:
        """Open the files; ``choose`` names the columns to read, given the first file and its schema.

        Raises:
            DataError: damaged files, or files without these columns.
            MissingDependencyError: pyarrow is not installed.
        """
        files = find_parquet(path)
        self.tables = [open_parquet(file) for file in files]
        self.columns = tuple(choose(files[0], self.tables[0].schema_arrow))
        self.files = files
        for file, table in zip(files, self.tables, strict=True):
            missing = set(self.columns) - set(table.schema_arrow.names)
            if missing:
                got = f"{file} without {', '.join(sorted(missing))}"
                raise DataError(compose("the same columns in all parquet files", got, "take that file out"))
        self._groups = [
            (number, group, table.metadata.row_group(group).num_rows)
            for number, table in enumerate(self.tables)
            for group in range(table.metadata.num_row_groups)
        ]
        self._ends = list(accumulate(rows for _, _, rows in self._groups))
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = Lock()
        prefixes = [f.name if f == path else f.relative_to(path).as_posix() for f in files]
        self.identifiers = tuple(
            f"{prefix}:{row}"
            for prefix, table in zip(prefixes, self.tables, strict=True)
            for row in range(table.metadata.num_rows)
        )

    def __len__(self) -> int:
        return len(self.identifiers)

    def read(self, number: int) -> dict[str, Any]:
        """Read one row: column name to value.

        Raises:
            DataError: the file is damaged.
        """
        place = bisect_right(self._ends, number)
        start = self._ends[place - 1] if place else 0
        with self._lock:
            loaded = self._load(place)
        row: dict[str, Any] = loaded.slice(number - start, 1).to_pylist()[0]
        return row

    def _load(self, place: int) -> Any:
        import pyarrow as pa

        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        number, group, _ = self._groups[place]
        try:
            loaded = self.tables[number].read_row_group(group, columns=list(self.columns))
        except (OSError, pa.ArrowException) as error:
            raise damaged(self.files[number], error) from error
        self._kept[place] = loaded
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return loaded
