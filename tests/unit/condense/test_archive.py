"""A condensed set opens in Hugging Face datasets, weighs what it says, and is refused when a bit is off."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from aerogel.condense.api import Condensed
from aerogel.condense.archive import (
    IMAGES,
    LABELS,
    StoredImages,
    delta_bytes,
    encode_png,
    open_archive,
    read_images,
    write_images,
)
from aerogel.condense.condensed import load_condensed
from aerogel.core.folders import CARD_NAME
from aerogel.core.manifests import seal_text
from aerogel.errors import DataError, IntegrityError, MismatchError
from tests.unit.condense import tiny

MANIFEST = "manifest.json"


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test as soon as an image or a tensor of a refused set is opened."""

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr("aerogel.condense.condensed.read_images", unexpected)
    monkeypatch.setattr("aerogel.condense.adapter_claims.read_tensors", unexpected)
    monkeypatch.setattr("aerogel.condense.adapter_codecs.read_tensors", unexpected)
    monkeypatch.setattr("PIL.Image.open", unexpected)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest as somebody would who knows how it is sealed."""
    data = json.loads((folder / MANIFEST).read_text())
    data.pop("seal")
    change(data)
    (folder / MANIFEST).write_text(seal_text(data))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_survive_to_the_last_bit(tmp_path: Path, channels: int) -> None:
    data = tiny.draw(3, channels=channels)
    write_images(
        tmp_path / "a" / "x.parquet", StoredImages(data.images, data.labels, data.ids), data.class_names
    )
    found = read_images(tmp_path / "a" / "x.parquet", channels=channels, size=8, classes=3)
    assert torch.equal(found.images, data.images)
    assert torch.equal(found.labels, data.labels)
    assert found.source_ids == data.ids


def test_equal_images_are_equal_files(tmp_path: Path) -> None:
    data = tiny.draw(3)
    for name in ("a", "b"):
        write_images(tmp_path / name, StoredImages(data.images, data.labels, data.ids), data.class_names)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 8, 3), (1, 16, 3), (1, 8, 2)])
def test_images_of_another_shape_or_class_are_refused(
    tmp_path: Path, channels: int, size: int, classes: int
) -> None:
    data = tiny.draw(2)
    write_images(tmp_path / "x", StoredImages(data.images, data.labels, data.ids), data.class_names)
    with pytest.raises(IntegrityError, match=r"what to do: fetch the folder again"):
        read_images(tmp_path / "x", channels=channels, size=size, classes=classes)


@pytest.mark.parametrize("picture", [None, b"", b"GIF89a", encode_png(torch.zeros(1, 8, 8).byte())[:40]])
def test_what_is_no_png_is_refused(tmp_path: Path, picture: bytes | None) -> None:
    table = pa.table(
        {"image": [{"bytes": picture, "path": "x"}], "label": [0], "source_id": ["x"]},
        schema=pa.schema(
            [
                ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                ("label", pa.int64()),
                ("source_id", pa.string()),
            ]
        ),
    )
    pq.write_table(table, tmp_path / "x")
    with pytest.raises(IntegrityError, match="channel images"):
        read_images(tmp_path / "x", channels=1, size=8, classes=1)


@pytest.mark.parametrize("how", ["file", "folder"])
def test_hugging_face_datasets_opens_images_and_class_names(
    finished: Condensed, tmp_path: Path, how: str
) -> None:
    import datasets

    folder, cache = finished.data.folder, str(tmp_path)
    if how == "file":
        opened = datasets.load_dataset(
            "parquet", data_files=str(folder / IMAGES), split="train", cache_dir=cache
        )
    else:
        opened = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
    assert isinstance(opened.features["image"], datasets.Image)
    assert opened.features["label"] == datasets.ClassLabel(names=list(tiny.NAMES))
    assert len(opened) == 6
    first = opened[0]
    assert isinstance(first["image"], Image.Image)
    assert first["image"].size == (8, 8)
    assert list(first["image"].tobytes()) == finished.data.images[0].flatten().tolist()
    assert opened["label"][:] == finished.data.class_labels.tolist()


def test_the_manifest_counts_the_bytes_that_lie_on_disk(finished: Condensed) -> None:
    folder, manifest = finished.data.folder, finished.data.manifest
    on_disk = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    on_disk.pop(MANIFEST)
    assert {name: entry.bytes for name, entry in manifest.files.items()} == on_disk
    storage = {row["name"]: row["bytes"] for row in manifest.facts["storage"]}
    delta = sum(size for name, size in on_disk.items() if name.startswith(f"{LABELS}/"))
    assert delta_bytes(folder) == delta
    assert storage == {
        "images": on_disk[IMAGES],
        "label generator (delta)": delta,
        "label generator and backbone": delta + finished.pipeline.backbone.size_bytes,
    }
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"{size:,}" in card for size in storage.values())


def test_no_file_of_a_set_is_a_pickle(finished: Condensed) -> None:
    names = {path.suffix for path in finished.data.folder.rglob("*") if path.is_file()}
    assert names == {".json", ".parquet", ".safetensors", ".md"}


def list_data(archive: Path) -> list[Path]:
    """Return the files of a set but its card, which people may edit."""
    return sorted(path for path in archive.rglob("*") if path.is_file() and path.name != CARD_NAME)


@pytest.mark.usefixtures("nothing_loaded")
def test_any_flipped_bit_is_refused_before_anything_is_loaded(archive: Path) -> None:
    draw = random.Random(7)
    files = list_data(archive)
    places = [(path, 0) for path in files] + [(path, path.stat().st_size - 1) for path in files]
    sizes = [path.stat().st_size for path in files]
    places += [(path, draw.randrange(path.stat().st_size)) for path in files for _ in range(10)]
    places += [(path, draw.randrange(path.stat().st_size)) for path in draw.choices(files, sizes, k=40)]
    assert len(places) >= 80
    for path, position in places:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            load_condensed(archive)
        path.write_bytes(whole)
    open_archive(archive)


@pytest.mark.usefixtures("nothing_loaded")
def test_truncated_missing_extra_and_renamed_files_are_refused(archive: Path) -> None:
    for path in list_data(archive):
        whole = path.read_bytes()
        for kept in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:kept])
            with pytest.raises(IntegrityError, match=path.name):
                load_condensed(archive)
        path.unlink()
        with pytest.raises(IntegrityError, match=path.name):
            load_condensed(archive)
        path.with_name("other").write_bytes(whole)
        with pytest.raises(IntegrityError):
            load_condensed(archive)
        path.with_name("other").rename(path)
    (archive / LABELS / "more.bin").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"more\.bin"):
        load_condensed(archive)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "labels/../../outside", "a\\b", "c:d", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(archive: Path, name: str) -> None:
    (archive.parent / "outside").write_bytes(b"x")

    def rename(data: dict[str, Any]) -> None:
        data["files"][name] = data["files"].pop(IMAGES)

    edit(archive, rename)
    with pytest.raises(IntegrityError, match="file names below the folder"):
        load_condensed(archive)


@pytest.mark.usefixtures("nothing_loaded")
def test_a_link_in_the_place_of_a_file_is_refused(archive: Path) -> None:
    (archive / IMAGES).rename(archive.parent / "elsewhere")
    (archive / IMAGES).symlink_to(archive.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="link"):
        load_condensed(archive)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("class_names", "abc"),
        ("class_names", []),
        ("class_names", [1, 2, 3]),
        ("channels", 2),
        ("channels", True),
        ("size", 10**9),
        ("size", 0),
        ("tiles", 0),
        ("tiles", 9),
        ("mean", [0.1, 0.2]),
        ("std", [-1.0]),
        ("std", ["1"]),
        ("backbone", {"name": "x"}),
        ("templates", [None]),
        ("probe", []),
        ("probe", [[1.0]]),
        ("probe", [["a", "b", "c"]]),
        ("view_seed", None),
        ("images", "6"),
    ],
)
def test_facts_that_cannot_be_are_refused(archive: Path, fact: str, value: Any) -> None:
    edit(archive, lambda data: data["facts"].update({fact: value}))
    with pytest.raises(IntegrityError, match=fact):
        load_condensed(archive)


def test_facts_at_odds_with_the_images_are_refused(archive: Path) -> None:
    edit(archive, lambda data: data["facts"].update(images=7))
    with pytest.raises(IntegrityError, match="7 images"):
        load_condensed(archive)
    edit(archive, lambda data: data["facts"].update(images=6, views={"flip": 2.0}))
    with pytest.raises(IntegrityError, match="flip"):
        load_condensed(archive)


def test_what_is_no_condensed_set_is_refused(finished: Condensed, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="condensed-set"):
        open_archive(finished.folder / "teacher")
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        open_archive(tmp_path)
    with pytest.raises(DataError, match="a folder at"):
        open_archive(tmp_path / "none")
