"""Hostile tables of pictures: parquet from anybody, read as a labelled image set and as photos."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aerogel.zoo.photos import open_photos
from aerogel.zoo.sources import load_images
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Mutation,
    boobytrap,
    cuts,
    exchanged,
    flips,
    misplaced,
    mutation,
    swapped,
    written,
)

FILE, PAIR = "train.parquet", "more-train.parquet"
KIND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SIDE, ROWS = 32, 4


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write(path: Path, seed: int = 0) -> None:
    rows = [{"bytes": picture(seed + n), "path": f"{n}.png"} for n in range(ROWS)]
    table = pa.table(
        {"image": pa.array(rows, KIND), "label": pa.array([0, 1, 0, 1])}, metadata={"huggingface": "{}"}
    )
    pq.write_table(table, path)


def load_labelled(folder: Path) -> Any:
    found = load_images(folder / FILE)
    return [found.images, found.labels, found.class_names, found.ids]


def load_photos(folder: Path) -> Any:
    photos = open_photos(folder / FILE)
    return [photos.ids, [photo.image for photo in photos]]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tables")
    for name, seed in (("one", 0), ("other", 10)):
        (place / name).mkdir()
        write(place / name / FILE, seed)
        (place / name / PAIR).write_bytes(b"not a table at all, but long enough to be one")
    return place


@pytest.fixture(scope="session")
def labelled(place: Path) -> Subject:
    return Subject(place / "one", place / "other", load_labelled)


@pytest.fixture(scope="session")
def photos(place: Path) -> Subject:
    return Subject(place / "one", place / "other", load_photos)


def png(width: int, height: int) -> bytes:
    """Return the head of a PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    """Return a PNG whose text unpacks to far more than it is."""
    packed = b"Comment\0\0" + zlib.compress(b"x" * 80_000_000)
    body = b"zTXt" + packed
    plain = picture(0)
    return (
        plain[:33] + struct.pack(">I", len(packed)) + body + struct.pack(">I", zlib.crc32(body)) + plain[33:]
    )


def pictures(name: str, content: Callable[[], bytes | None]) -> Mutation:
    """Put other bytes in the place of every picture."""
    return table(f"picture-{name}", image=lambda: pa.array([{"bytes": content(), "path": None}] * ROWS, KIND))


def table(name: str, **columns: Callable[[], Any]) -> Mutation:
    """Rewrite columns of the table."""

    def act(folder: Path, other: Path) -> None:
        found = pq.read_table(folder / FILE)
        for column, values in columns.items():
            array = values()
            index = found.schema.get_field_index(column)
            found = found.slice(0, len(array)).set_column(index, column, array)
        pq.write_table(found, folder / FILE, compression="zstd")

    return mutation(name, (FILE, "label", "image"), act)


def rename(folder: Path, other: Path) -> None:
    found = pq.read_table(folder / FILE)
    pq.write_table(found.rename_columns(["x" * 10**5, "y\n"]), folder / FILE)


SHARED = [
    *cuts(FILE),
    *flips(FILE, (0, -1, -5, -6, -8)),
    *(each for each in misplaced(FILE) if "linked" not in each.name),
    exchanged(FILE, PAIR),
    written("pickle", FILE, boobytrap),
    written("magic", FILE, b"PAR1PAR1"),
    written("footer", FILE, lambda f: (f / FILE).read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1"),
    written("zip", FILE, b"PK\x03\x04" + b"\0" * 100),
    mutation("renamed-columns", (FILE, "column"), rename),
    pictures("svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>"),
    pictures("pickle", lambda: boobytrap(Path("/nowhere"))),
    pictures("eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"),
    pictures("gif-bomb", lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 20),
    pictures("claims-60000", lambda: png(60_000, 60_000)),
    pictures("claims-2-31", lambda: png(2**31 - 1, 2**31 - 1)),
    pictures("claims-0", lambda: png(0, 0)),
    pictures("claims-more", lambda: png(64, 64)),
    pictures("text-bomb", text_bomb),
    pictures(
        "bmp-huge",
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    ),
    pictures("tiff", lambda: b"II*\0" + b"\xff" * 50),
    pictures("webp", lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8 "),
    pictures("jpeg", lambda: picture(0, "JPEG")[:200]),
    pictures("empty", lambda: b""),
    pictures("null", lambda: None),
    pictures("tiny", lambda: png(1, 1)),
    table("image-null", image=lambda: pa.array([None] * ROWS, KIND)),
    table("image-numbers", image=lambda: pa.array([1] * ROWS)),
    table("image-text", image=lambda: pa.array(["/etc/passwd"] * ROWS)),
    table("image-list", image=lambda: pa.array([[b"x"]] * ROWS)),
    table(
        "image-path",
        image=lambda: pa.array([{"bytes": None, "path": "/etc/passwd"}] * ROWS, KIND),
    ),
    table("image-bytes-text", image=lambda: pa.array([{"bytes": "abc"}] * ROWS)),
    table("none", image=lambda: pa.array([], KIND), label=lambda: pa.array([], pa.int64())),
]
LABELS = [
    table("label-negative", label=lambda: pa.array([-1, 1, 0, 1])),
    table("label-huge", label=lambda: pa.array([2**62, 1, 0, 1])),
    table("label-gap", label=lambda: pa.array([0, 9, 0, 9])),
    table("label-null", label=lambda: pa.array([None, 1, 0, 1])),
    table("label-float", label=lambda: pa.array([0.5, 1.0, 0.0, 1.0])),
    table("label-nan", label=lambda: pa.array([float("nan")] * ROWS)),
    table("label-list", label=lambda: pa.array([[0]] * ROWS)),
    table("label-bytes", label=lambda: pa.array([b"0"] * ROWS)),
    table("label-true", label=lambda: pa.array([True] * ROWS)),
    table("label-struct", label=lambda: pa.array([{"a": 1}] * ROWS)),
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("change", offer([*SHARED, *LABELS]))
def test_a_mutated_table_is_refused_or_gives_the_same_images(
    change: Mutation, labelled: Subject, tmp_path: Path
) -> None:
    judge(labelled, change, tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("change", offer(SHARED))
def test_a_mutated_table_is_refused_or_gives_the_same_photos(
    change: Mutation, photos: Subject, tmp_path: Path
) -> None:
    judge(photos, change, tmp_path)


def test_another_sound_table_is_another(labelled: Subject, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="something else"):
        judge(labelled, swapped(FILE), tmp_path)
