from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from aerogel.errors import DataError
from aerogel.zoo.parquet import ParquetFiles
from aerogel.zoo.request import Request

Png = Callable[..., bytes]


def write(
    path: Path, pictures: list[bytes | None], labels: list[Any], names: list[str] | None = None
) -> Path:
    table = pa.table({"image": [{"bytes": p, "path": "x.png"} for p in pictures], "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def test_declared_class_names(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "pets.parquet", [png(1), png(2)], [1, 0], ["cat", "dog"])
    data = ParquetFiles(path).read(Request())
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 0]
    assert data.ids == ("pets.parquet:0", "pets.parquet:1")
    assert data.images[:, 0, 0, 0].tolist() == [1, 2]
    assert data.name == "pets"


def test_another_class_order_renumbers(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "pets.parquet", [png(1), png(2)], [1, 0], ["cat", "dog"])
    data = ParquetFiles(path).read(Request(class_names=("dog", "cat")))
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="2 classes"):
        ParquetFiles(path).read(Request(class_names=("dog", "fox")))


def test_text_and_plain_number_labels(tmp_path: Path, png: Png) -> None:
    texts = write(tmp_path / "a.parquet", [png(1), png(2)], ["dog", "cat"])
    assert ParquetFiles(texts).read(Request()).labels.tolist() == [1, 0]
    numbers = write(tmp_path / "b.parquet", [png(1), png(2)], [0, 1])
    assert ParquetFiles(numbers).read(Request()).class_names == ("0", "1")


def test_bare_bytes_and_dictionary_labels(tmp_path: Path, png: Png) -> None:
    table = pa.table(
        {"img": [png(1), png(2)], "kind": pa.array(["b", "a"]).dictionary_encode(), "area": [0.5, 1.0]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    data = ParquetFiles(tmp_path / "a.parquet").read(Request())
    assert (data.class_names, data.labels.tolist()) == (("a", "b"), [1, 0])


def test_splits_by_file_and_folder_names(tmp_path: Path, png: Png) -> None:
    root = tmp_path / "set"
    write(root / "data" / "train-00000-of-00002.parquet", [png(1)], ["b"])
    write(root / "data" / "train-00001-of-00002.parquet", [png(2)], ["a"])
    write(root / "validation" / "0.parquet", [png(3)], ["b"])
    write(root / ".cache" / "train.parquet", [png(9)], ["z"])
    source = ParquetFiles(root)
    assert source.splits() == ("train", "test")
    train = source.read(Request())
    assert train.ids == ("data/train-00000-of-00002.parquet:0", "data/train-00001-of-00002.parquet:0")
    with pytest.raises(DataError, match="class 'a' has no usable images"):
        source.read(Request(split="test"))  # the class list is the training split's


def test_a_file_is_never_both_splits(tmp_path: Path, png: Png) -> None:
    test_file = write(tmp_path / "test.parquet", [png(1)], [0])
    plain_file = write(tmp_path / "pets.parquet", [png(1)], [0])
    assert ParquetFiles(test_file).splits() == ("test",)
    assert len(ParquetFiles(test_file).read(Request(split="test"))) == 1
    assert ParquetFiles(plain_file).splits() == ("train",)
    with pytest.raises(DataError, match="'test' split"):
        ParquetFiles(plain_file).read(Request(split="test"))


def test_problems_are_listed_together(tmp_path: Path, png: Png) -> None:
    pictures = [png(1), b"junk", None, png(1), png(1)]
    path = write(tmp_path / "a.parquet", pictures, [0, 0, 0, 5, None], ["cat", "dog"])
    with pytest.raises(DataError) as caught:
        ParquetFiles(path).read(Request())
    message = str(caught.value)
    for words in (":1: not an image", ":2: no picture", ":3: label 5", ":4: no label", "'dog' has no"):
        assert words in message


def test_rows_beyond_a_batch_keep_their_numbers(tmp_path: Path, png: Png) -> None:
    path = write(tmp_path / "a.parquet", [png(row % 256) for row in range(300)], [0] * 300)
    data = ParquetFiles(path).read(Request(channels=1))
    assert data.ids[299] == "a.parquet:299"
    assert data.images[:, 0, 0, 0].tolist() == [row % 256 for row in range(300)]


def test_damaged_files_are_refused(tmp_path: Path, png: Png) -> None:
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="whole parquet file"):
        ParquetFiles(tmp_path / "text.parquet").read(Request())
    path = write(tmp_path / "cut.parquet", [png(1)], [0])
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(DataError):
        ParquetFiles(path).read(Request())


def test_files_with_other_columns_are_refused(tmp_path: Path, png: Png) -> None:
    write(tmp_path / "set" / "a.parquet", [png(1)], [0])
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "set" / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet without image, label"):
        ParquetFiles(tmp_path / "set").read(Request())


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", '{"info": {"features": {"label": {"names": 3}}}}', '{"info": {"features": {"label": []}}}'],
)
def test_foreign_metadata_is_ignored(tmp_path: Path, png: Png, metadata: str) -> None:
    table = pa.table({"image": [png(1)], "label": [0]}).replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert ParquetFiles(tmp_path / "a.parquet").read(Request()).class_names == ("0",)
