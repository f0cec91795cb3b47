"""Tar shards are read in place: nothing is unpacked, and every problem is listed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aerogel.errors import DataError
from aerogel.zoo import load_images, load_splits, open_images
from aerogel.zoo.records import Problems
from aerogel.zoo.shards import list_samples

SIZE = 8


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE), value, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return path


def write_shards(folder: Path) -> Path:
    for shard in range(2):
        files: dict[str, bytes] = {}
        for index in range(3):
            key = f"./s/{shard}{index}"
            files |= {f"{key}.png": png(10 * shard + index), f"{key}.cls": str(index % 2).encode()}
        write_tar(folder / f"train-{shard:04d}.tar", files)
    write_tar(folder / "val-0000.tar", {"a.json": b'{"label": 1, "w": 8}', "a.png": png(9), "b.PNG": png(8)})
    return folder


def test_shards_by_file_folder_and_pattern(tmp_path: Path) -> None:
    write_shards(tmp_path)
    whole = load_images(tmp_path)
    assert whole.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert whole.labels.tolist() == [0, 1, 0, 0, 1, 0] and whole.class_names == ("0", "1")
    assert whole.ids[0] == "train-0000.tar:s/00"
    assert torch.equal(load_images(str(tmp_path / "train-*.tar")).images, whole.images)
    assert len(load_images(tmp_path / "train-0001.tar")) == 3


def test_a_test_split_and_labels_in_json(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with pytest.raises(DataError, match=r"val-0000\.tar:b: no label"):
        load_splits(tmp_path)
    write_tar(
        tmp_path / "val-0000.tar",
        {"a.json": b'{"label": 1}', "a.png": png(9), "b.cls": b"0", "b.png": png(8)},
    )
    train, test = load_splits(tmp_path)
    assert test.labels.tolist() == [1, 0] and test.class_names == train.class_names


def test_labels_may_be_names_or_in_a_named_field(tmp_path: Path) -> None:
    def label(name: str) -> bytes:
        return json.dumps({"kind": name, "label": 7}).encode()

    path = write_tar(
        tmp_path / "x.tar", {"a.png": png(1), "a.json": label("cat"), "b.png": png(2), "b.json": label("ant")}
    )
    found = load_images(path, label_column="kind")
    assert found.class_names == ("ant", "cat") and found.labels.tolist() == [1, 0]


def test_what_leads_out_of_a_shard_is_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    path = write_tar(
        tmp_path / "x.tar",
        {"a.png": png(1), "a.cls": b"0", "../b.png": png(2), "/c.png": png(3), "d.cls": b"0"},
        {"e.png": str(tmp_path / "secret.png")},
    )
    with pytest.raises(DataError) as error:
        load_images(path)
    text = str(error.value)
    assert "../b.png: a name that leads out" in text and "/c.png: a name that leads out" in text
    assert "e.png: no plain file" in text and "x.tar:d: no picture" in text
    assert sorted(each.name for each in tmp_path.iterdir()) == ["secret.png", "x.tar"]


@pytest.mark.parametrize("label", [b"", b"x" * 5000, b"\xff", b"9" * 5000, b"2"])
def test_labels_that_are_none_are_listed(tmp_path: Path, label: bytes) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.png": png(1), "a.cls": label, "b.png": png(1), "b.cls": b"0"})
    with pytest.raises(DataError, match="label"):
        load_images(path, class_names=("p", "q"))


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.png": png(1), "a.cls": b"0"})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError):
        load_images(path)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="a whole, uncompressed tar file"):
        list(list_samples(path, None, Problems("x")))
    with pytest.raises(DataError, match=r"tar files at .*none"):
        open_images(str(tmp_path / "y-*.tar"), size=8)
