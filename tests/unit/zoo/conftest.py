"""Small real files for the readers: PNG bytes, class folders and IDX folders."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aerogel.zoo.idx import write_idx


def make_png(level: int, size: tuple[int, int] = (10, 10), mode: str = "RGB") -> bytes:
    """Encode one flat picture of a grey level."""
    stream = io.BytesIO()
    Image.new("L", size, level).convert(mode).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    return make_png


@pytest.fixture
def class_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write root/class/number.png with as many pictures per class as given."""

    def write(counts: dict[str, int], below: str = "pets", **options: object) -> Path:
        root = tmp_path / below
        for number, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True)
            for image in range(count):
                (root / name / f"{image}.png").write_bytes(make_png(10 * number + image, **options))
        return root

    return write


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder in MNIST's layout: 12 training and 6 test images of 10x10 px, 3 classes."""

    def write(name: str = "marks", splits: tuple[str, ...] = ("train", "t10k"), classes: int = 3) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for prefix in splits:
            count = 12 if prefix == "train" else 6
            images = np.arange(count * 100, dtype=np.int64).reshape(count, 10, 10) % 251
            write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images.astype(np.uint8))
            write_idx(
                folder / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % classes).astype(np.uint8)
            )
        return folder

    return write
