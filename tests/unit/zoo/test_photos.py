from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from aerogel.core.folders import seal_folder
from aerogel.errors import ConfigError, DataError
from aerogel.zoo.decode import PictureError
from aerogel.zoo.photos import find_photos, open_photos
from aerogel.zoo.selection import OTHER_FILE, Skipped

Png = Callable[..., bytes]


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def flat(level: int, mode: str = "RGB", size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.new("L", size, level).convert(mode)


def noise(size: tuple[int, int] = (80, 60)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photos of all kinds, and what is none."""
    root = tmp_path / "photos"
    save(root / "b" / "1.JPG", flat(10), format="JPEG")
    save(root / "b" / "2.webp", flat(20), lossless=True)
    save(root / "a.png", flat(30))
    save(root / "c.bmp", flat(40))
    save(root / "d.tif", flat(50))
    save(root / ".hidden.png", flat(99))
    save(root / ".cache" / "x.png", flat(99))
    (root / "notes.json").write_text("{}")
    (root / "Thumbs.db").write_bytes(b"")
    return root


def test_a_folder_is_read_sorted_with_its_sub_folders(folder: Path) -> None:
    photos = open_photos(folder)
    assert photos.ids == ("a.png", "b/1.JPG", "b/2.webp", "c.bmp", "d.tif")
    assert len(photos) == 5
    assert [photo.identifier for photo in photos] == list(photos.ids)
    assert [int(photo.image[0, 0, 0]) for photo in photos] == [30, 10, 20, 40, 50]
    assert {photo.image.shape for photo in photos} == {(40, 50, 3)}
    assert photos.skipped == (Skipped("notes.json", OTHER_FILE),)


def test_photos_of_every_kind_become_upright_rgb(tmp_path: Path) -> None:
    save(tmp_path / "grey.png", flat(90, "L"))
    save(tmp_path / "palette.png", flat(90, "P"))
    save(tmp_path / "alpha.png", Image.new("RGBA", (50, 40), (10, 20, 30, 0)))
    save(tmp_path / "cmyk.jpg", flat(90).convert("CMYK"), quality=95)
    deep = Image.fromarray(np.full((40, 50), 90 * 257, dtype=np.uint16))
    save(tmp_path / "deep.png", deep)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.jpg", flat(90), exif=exif)
    found = {photo.identifier: photo.image for photo in open_photos(tmp_path)}
    for name, image in found.items():
        assert image.dtype == np.uint8
        assert image.shape == ((50, 40, 3) if name == "turned.jpg" else (40, 50, 3)), name
        level = 255 if name == "alpha.png" else 90
        assert np.abs(image.astype(int) - level).max() <= 4, name


def test_unusable_files_are_left_out_and_each_is_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "tiny.png", flat(0, size=(31, 90)))
    (folder / "text.png").write_text("no picture")
    whole = save(folder / "cut.jpg", noise()).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    photos = open_photos(folder)
    assert len(photos) == 5
    reasons = {each.identifier: each.reason for each in photos.skipped}
    assert reasons.keys() == {"cut.jpg", "empty.png", "notes.json", "text.png", "tiny.png"}
    assert reasons["tiny.png"] == "31x90 px, smaller than 32 px"
    assert reasons["text.png"] == "not an image in a known format"
    assert "unreadable image" in reasons["cut.jpg"]
    said = capsys.readouterr().err
    assert all(name in said for name in ("cut.jpg", "tiny.png", "text.png", "empty.png", ".json"))
    assert len(open_photos(folder, smallest_px=16)) == 6


def test_a_header_alone_does_not_show_damage(folder: Path) -> None:
    whole = save(folder / "cut.jpg", noise()).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    photos = open_photos(folder, check="header")
    assert len(photos) == 6
    with pytest.raises(PictureError, match=r"cut.jpg: unreadable"):
        photos[photos.ids.index("cut.jpg")]


def test_limit_and_seeded_sample(folder: Path) -> None:
    assert open_photos(folder, limit=2).ids == ("a.png", "b/1.JPG")
    sample = open_photos(folder, limit=3, seed=4)
    assert sample.ids == open_photos(folder, limit=3, seed=4).ids
    assert list(sample.ids) == sorted(sample.ids)
    with pytest.raises(DataError, match=r"6 usable photos .*got 5"):
        open_photos(folder, limit=6)


def test_none_at_all_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"usable photos in .*, at least one; got 0"):
        open_photos(tmp_path)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"got 0, having left out 1 problem: a.png: not an image"):
        open_photos(tmp_path)
    with pytest.raises(DataError, match="an existing folder"):
        open_photos(tmp_path / "nowhere")
    with pytest.raises(DataError, match="an existing folder"):
        open_photos("nowhere")
    with pytest.raises(ConfigError, match="check 'decode'"):
        open_photos(tmp_path, check="look")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="smallest_px"):
        open_photos(tmp_path, smallest_px=0)


def test_single_files_and_lists(folder: Path) -> None:
    assert open_photos(folder / "a.png").ids == ("a.png",)
    files = [folder / "d.tif", folder / "missing.png", str(folder / "a.png")]
    photos = open_photos(files)
    assert [photo.image[0, 0, 0] for photo in photos] == [50, 30]
    assert [each.identifier for each in photos.skipped] == [(folder / "missing.png").as_posix()]


def test_a_file_is_taken_once_and_lists_hold_paths(folder: Path) -> None:
    photos = open_photos([folder / "a.png", folder / "d.tif", str(folder / "a.png")])
    assert len(photos) == 2
    assert photos.skipped == (Skipped((folder / "a.png").as_posix(), "listed before"),)
    with pytest.raises(DataError, match="a list of image files; got Image in it"):
        open_photos([flat(10)])  # type: ignore[list-item]


def test_pictures_of_runs_are_no_photos(folder: Path) -> None:
    save(folder / "run" / "exhibits" / "0-after.jpg", flat(1))
    save(folder / "run" / "model.partial" / "x.png", flat(1))
    save(folder / "mine" / "x.png", flat(60))
    seal_folder(folder / "run" / "exhibits", kind="slim-exhibits", config={}, facts={})
    (folder / "run" / "model.partial" / ".stage.json").write_text("{}")
    (folder / "mine" / "manifest.json").write_text('{"photos": ["x.png"]}')
    photos = open_photos(folder)
    assert photos.ids == ("a.png", "b/1.JPG", "b/2.webp", "c.bmp", "d.tif", "mine/x.png")
    made = [each.identifier for each in photos.skipped if each.reason == "a folder that Aerogel made"]
    assert made == ["run/exhibits", "run/model.partial"]
    assert open_photos(folder / "run" / "exhibits").ids == ("0-after.jpg",)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_no_text_is_left_out(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(1))
    found = find_photos(folder)
    assert len(found.files) == 5
    assert Skipped("caf\\xe9.png", "a name that is no UTF-8") in found.skipped


def test_linked_folders_are_not_followed_but_named(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x.png", flat(1))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    found = find_photos(folder)
    assert len(found.files) == 5
    assert Skipped("link", "a linked folder, which is not followed") in found.skipped


def encoded(level: int) -> bytes:
    stream = io.BytesIO()
    flat(level).save(stream, "PNG")
    return stream.getvalue()


def test_parquet_as_datasets_writes_it(tmp_path: Path) -> None:
    pictures = [{"bytes": encoded(1), "path": "x.png"}, {"bytes": b"no", "path": None}, None]
    pictures += [{"bytes": None, "path": "y.png"}, {"bytes": encoded(2), "path": None}]
    parquet.write_table(pa.table({"image": pictures, "name": list("abcde")}), tmp_path / "a.parquet")
    for source in (tmp_path, tmp_path / "a.parquet"):
        photos = open_photos(source)
        assert photos.ids == ("a.parquet:0", "a.parquet:4")
        assert [photo.image[0, 0, 0] for photo in photos] == [1, 2]
        assert [each.reason for each in photos.skipped] == [
            "not an image in a known format",
            "no picture stored",
            "no picture stored",
        ]


def test_the_column_can_be_named(tmp_path: Path) -> None:
    table = pa.table({"left": [encoded(1)], "right": [encoded(2)]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert open_photos(tmp_path, image_column="right")[0].image[0, 0, 0] == 2
    with pytest.raises(DataError, match="pass image_column="):
        open_photos(tmp_path)
    with pytest.raises(DataError, match="did you mean 'right'"):
        open_photos(tmp_path, image_column="rigth")


def test_pictures_go_before_parquet_in_one_folder(folder: Path) -> None:
    parquet.write_table(pa.table({"image": [encoded(1)]}), folder / "stray.parquet")
    photos = open_photos(folder)
    assert len(photos) == 5
    assert Skipped("stray.parquet", OTHER_FILE) in photos.skipped


def test_saved_datasets_with_all_their_splits(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    parts = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": encoded(level), "path": None}], "label": [0]}, features=features
        )
        for name, level in (("train", 5), ("test", 6))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    photos = open_photos(tmp_path / "saved")
    assert photos.ids == ("train:0", "test:0")
    assert [photo.image[0, 0, 0] for photo in photos] == [5, 6]


def test_hub_datasets_by_their_training_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    data = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(7), "path": None}]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    asked: list[Any] = []

    def load(name: str, configuration: str | None, split: str) -> Any:
        asked.append((name, configuration, split))
        return data

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, configuration: ["test", "train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    photos = open_photos("somebody/photos:small")
    assert photos.ids == ("train:0",)
    assert asked == [("somebody/photos", "small", "train")]
    assert photos[0].image[0, 0, 0] == 7


def test_sample_photos_ship() -> None:
    photos = open_photos("aerogel/samples")
    assert photos.ids == (
        "astronaut.jpg",
        "camera.jpg",
        "chelsea.jpg",
        "coffee.jpg",
        "coins.jpg",
        "rocket.jpg",
    )
    assert all(photo.image.std() > 20 for photo in photos)
