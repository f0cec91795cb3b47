from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from aerogel.errors import DataError
from aerogel.zoo.rows import ParquetRows


def write(path: Path, numbers: list[int], group: int = 2, name: str = "n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({name: numbers, "other": [0] * len(numbers)}), path, row_group_size=group)
    return path


def test_rows_of_many_files_and_groups_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", [10, 11, 12, 13, 14])
    write(tmp_path / "a" / "0.parquet", [0, 1, 2])
    write(tmp_path / "c.parquet", [])
    rows = ParquetRows(tmp_path, lambda file, schema: ["n"])
    assert len(rows) == 8
    assert rows.identifiers[:4] == ("a/0.parquet:0", "a/0.parquet:1", "a/0.parquet:2", "b.parquet:0")
    for number in (7, 0, 3, 2, 6, 1, 5, 4):
        assert rows.read(number) == {"n": [0, 1, 2, 10, 11, 12, 13, 14][number]}


def test_groups_read_last_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ParquetRows(write(tmp_path / "a.parquet", list(range(8))), lambda file, schema: ["n"])
    for number in range(8):
        rows.read(number)
    assert list(rows._kept) == [0, 1, 2, 3]
    monkeypatch.setattr("aerogel.zoo.rows.KEPT_BYTES", 40)
    small = ParquetRows(tmp_path / "a.parquet", lambda file, schema: ["n"])
    assert [small.read(number)["n"] for number in (0, 7, 1, 6, 2)] == [0, 7, 1, 6, 2]
    assert list(small._kept) == [3, 1]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1])
    write(tmp_path / "b.parquet", [1], name="m")
    with pytest.raises(DataError, match=r"b.parquet without n"):
        ParquetRows(tmp_path, lambda file, schema: ["n"])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="whole parquet file"):
        ParquetRows(tmp_path, lambda file, schema: ["n"])


def test_damage_inside_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", list(range(1000)), group=1000)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    rows = ParquetRows(path, lambda file, schema: ["n"])
    with pytest.raises(DataError, match=r"whole parquet file at .*a.parquet"):
        rows.read(0)
