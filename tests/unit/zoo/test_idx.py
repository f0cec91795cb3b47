from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aerogel.errors import DataError
from aerogel.zoo.idx import find_idx, read_idx, read_idx_split, write_idx

KINDS = ("u1", "i1", "i2", "i4", "f4", "f8")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@settings(max_examples=30)
@given(array=hnp.arrays(st.sampled_from(KINDS), hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, suffix: str, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / f"array{suffix}"
    back = read_idx(write_idx(path, array))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert back.shape == array.shape


def test_layout_is_the_published_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int16))
    expected = b"\0\0\x0b\x02" + struct.pack(">II6h", 2, 3, 1, 2, 3, 4, 5, 6)
    assert (tmp_path / "a").read_bytes() == expected


def test_equal_arrays_give_equal_compressed_bytes(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.uint8)
    assert (
        write_idx(tmp_path / "a.gz", array).read_bytes() == write_idx(tmp_path / "b.gz", array).read_bytes()
    )


def test_result_is_writable(tmp_path: Path) -> None:
    back = read_idx(write_idx(tmp_path / "a", np.zeros(3, dtype=np.uint8)))
    back[0] = 1
    assert back.tolist() == [1, 0, 0]


def test_write_refuses_a_type_without_a_code(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complex128"):
        write_idx(tmp_path / "a", np.zeros(3, dtype=complex))
    assert list(tmp_path.iterdir()) == []


HEADER = b"\0\0\x08\x01"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing"),
        (b"\0\0\x07\x01\0\0\0\0", "not IDX"),
        (b"PNG!", "not IDX"),
        (HEADER + b"\0\0", "breaks off"),
        (HEADER + struct.pack(">I", 5) + b"abc", "3 bytes of data where the header declares 5"),
        (HEADER + struct.pack(">I", 2) + b"abc", "more data"),
        (b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**31, 4), "implausible"),
        (b"\0\0\x08\x03" + struct.pack(">III", 0, 2**31, 2**31), "implausible"),
        (HEADER + struct.pack(">I", 2**32 - 1), "0 bytes of data"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_read_refuses_what_is_not_whole(tmp_path: Path, content: bytes, words: str, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=words):
        read_idx(path)


def test_read_refuses_damaged_compression(tmp_path: Path) -> None:
    whole = gzip.compress(HEADER + struct.pack(">I", 500) + bytes(range(250)) * 2)
    for content in (whole[:-9], whole[:-8] + bytes(8), whole[:12] + b"\xff" * 20 + whole[32:], b"plain"):
        (tmp_path / "bad.gz").write_bytes(content)
        with pytest.raises(DataError, match="whole IDX file"):
            read_idx(tmp_path / "bad.gz")


def test_read_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "split", "part"),
    [
        ("train-images-idx3-ubyte.gz", "train", "images"),
        ("train-images.idx3-ubyte", "train", "images"),
        ("t10k-labels-idx1-ubyte", "test", "labels"),
        ("test-labels-idx1-ubyte.gz", "test", "labels"),
    ],
)
def test_find_knows_the_names_in_use(tmp_path: Path, file: str, split: str, part: str) -> None:
    assert find_idx(tmp_path, split, part) is None
    (tmp_path / file).touch()
    assert find_idx(tmp_path, split, part) == tmp_path / file


def test_read_split(idx_folder: Callable[..., Path]) -> None:
    images, labels = read_idx_split(idx_folder(), "test")
    assert images.shape == (6, 10, 10)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_read_split_names_the_missing_file(idx_folder: Callable[..., Path]) -> None:
    folder = idx_folder()
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"put t10k-labels-idx1-ubyte\.gz into"):
        read_idx_split(folder, "test")


@pytest.mark.parametrize(
    ("part", "array", "words"),
    [
        ("images-idx3", np.zeros((12, 10), np.uint8), r"uint8 \[N, H, W\]"),
        ("images-idx3", np.zeros((12, 10, 10), np.int16), "int16"),
        ("labels-idx1", np.zeros(11, np.uint8), "12 images but labels uint8"),
        ("labels-idx1", np.zeros(12, np.float32), "labels float32"),
    ],
)
def test_read_split_refuses_parts_that_disagree(
    idx_folder: Callable[..., Path], part: str, array: np.ndarray, words: str
) -> None:
    folder = idx_folder()
    write_idx(folder / f"train-{part}-ubyte.gz", array)
    with pytest.raises(DataError, match=words):
        read_idx_split(folder, "train")
