"""The IDX format of the MNIST family: read and write arrays, find the files of a split in a folder."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np

from aerogel.core.folders import write_bytes_atomic
from aerogel.errors import DataError, compose

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 16 << 20
LARGEST = 64 << 30
PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
ENDINGS = {
    "images": ("-images-idx3-ubyte", "-images.idx3-ubyte"),
    "labels": ("-labels-idx1-ubyte", "-labels.idx1-ubyte"),
}


def read_idx(path: Path | str) -> np.ndarray:
    """Read an array from an IDX file, compressed when its name ends in .gz.

    The file must hold exactly the bytes its header declares; nothing is allocated on the header's word.

    Raises:
        DataError: missing, damaged, truncated or overlong file, or not in IDX format.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            dtype, shape = _read_header(stream, path)
            data = _read_exactly(stream, math.prod(shape) * dtype.itemsize, path)
            if stream.read(1):
                raise _damaged(path, f"more data than the declared {list(shape)}")
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    array: np.ndarray = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: Path | str, array: np.ndarray) -> Path:
    """Write an array as IDX, gzip-compressed when the name ends in .gz; equal arrays give equal bytes.

    Raises:
        DataError: the array's type has no IDX code, or it has more than 255 dimensions.
    """
    path = Path(path)
    wanted = array.dtype.newbyteorder(">")
    codes = [code for code, name in TYPES.items() if np.dtype(name) == wanted]
    if not codes:
        remedy = f"convert to one of {', '.join(np.dtype(name).name for name in TYPES.values())}"
        raise DataError(compose("an array type that IDX can hold", str(array.dtype), remedy))
    header = bytes([0, 0, codes[0], array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    data = header + np.ascontiguousarray(array, dtype=wanted).tobytes()
    write_bytes_atomic(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def find_idx(folder: Path, split: str, part: str) -> Path | None:
    """Find the "images" or "labels" file of a split in a folder by MNIST's file names, compressed or not."""
    for prefix in PREFIXES[split]:
        for ending in ENDINGS[part]:
            for suffix in (".gz", ""):
                candidate = folder / f"{prefix}{ending}{suffix}"
                if candidate.is_file():
                    return candidate
    return None


def read_idx_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read (images uint8 [N, H, W], labels int64 [N]) of one split from a folder in MNIST's layout.

    Raises:
        DataError: a file is missing or damaged, or images and labels disagree.
    """
    found = {part: find_idx(folder, split, part) for part in ENDINGS}
    missing = [f"{PREFIXES[split][0]}{ENDINGS[part][0]}.gz" for part, path in found.items() if path is None]
    if found["images"] is None or found["labels"] is None:
        remedy = f"put {' and '.join(missing)} into the folder, or name another source"
        raise DataError(compose(f"an image and a label file for {split!r} in {folder}", "none", remedy))
    images, labels = read_idx(found["images"]), read_idx(found["labels"])
    if images.ndim != 3 or images.dtype != np.uint8:
        raise _damaged(
            found["images"], f"{images.dtype} {list(images.shape)} where uint8 [N, H, W] should be"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "ui":
        raise _damaged(
            found["labels"], f"{len(images)} images but labels {labels.dtype} {list(labels.shape)}"
        )
    return images, labels.astype(np.int64)


def _read_header(stream: io.BufferedIOBase, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not magic[3]:
        raise _damaged(path, f"a file that starts with {magic.hex() or 'nothing'}, which is not IDX")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise _damaged(path, "a header that breaks off")
    dtype = np.dtype(TYPES[magic[2]])
    shape = tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > LARGEST or len(shape) > 32:
        raise _damaged(path, f"an implausible declared shape {list(shape)[:8]}")
    return dtype, shape


def _read_exactly(stream: io.BufferedIOBase, count: int, path: Path) -> bytearray:
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(CHUNK, count - len(data)))
        if not piece:
            raise _damaged(path, f"{len(data)} bytes of data where the header declares {count}")
        data += piece
    return data


def _damaged(path: Path, got: str) -> DataError:
    return DataError(compose(f"a whole IDX file at {path}", got, "fetch or copy the file again"))
