from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from aerogel.errors import ConfigError, DataError
from aerogel.zoo.hub import HubDataset, SavedDataset
from aerogel.zoo.imagefolder import ImageFolder
from aerogel.zoo.named import Digits, IdxFolder
from aerogel.zoo.parquet import ParquetFiles
from aerogel.zoo.sources import load_images, load_splits, resolve_source

Folder = Callable[..., Path]
Png = Callable[..., bytes]


def test_every_kind_of_path_finds_its_reader(
    tmp_path: Path, class_folder: Folder, idx_folder: Folder, png: Png
) -> None:
    table = pa.table({"image": [png(1)], "label": [0]})
    (tmp_path / "tables").mkdir()
    parquet.write_table(table, tmp_path / "tables" / "train.parquet")
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    assert isinstance(resolve_source(class_folder({"cat": 1})), ImageFolder)
    assert isinstance(resolve_source(str(idx_folder())), IdxFolder)
    assert isinstance(resolve_source(tmp_path / "tables"), ParquetFiles)
    assert isinstance(resolve_source(tmp_path / "tables" / "train.parquet"), ParquetFiles)
    assert isinstance(resolve_source(tmp_path / "saved"), SavedDataset)


def test_names_and_hub_names() -> None:
    assert isinstance(resolve_source("digits"), Digits)
    assert resolve_source("owner/pets") == HubDataset("owner/pets")
    assert resolve_source("owner/pets:small") == HubDataset("owner/pets", "small")
    assert resolve_source("cifar10") == HubDataset("cifar10")


def test_a_path_goes_before_a_name_and_says_so(
    class_folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(class_folder({"cat": 1}, "digits").parent)
    assert isinstance(resolve_source("digits"), ImageFolder)
    assert "goes before the named source" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source", ["/nowhere/photos", "./photos", "a/b/c", "photos/", "train.parquet", Path("digits"), ""]
)
def test_what_is_nothing_is_refused_without_asking_the_hub(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        load_images(source)


def test_a_slip_in_a_name_gets_the_right_one() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        resolve_source("digitz")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match="give the folder"):
        resolve_source(tmp_path / "photos.zip")


def test_wrong_arguments_are_found_before_the_source() -> None:
    with pytest.raises(ConfigError, match="size 3"):
        load_images("/nowhere", size=3)


def test_load_images_passes_everything_on(class_folder: Folder) -> None:
    root = class_folder({"cat": 1, "dog": 1})
    (root / "cat" / "bad.png").write_text("junk")
    data = load_images(root, size=8, channels=1, class_names=["dog", "cat"], skip_bad=True)
    assert data.shape == (1, 8, 8)
    assert data.class_names == ("dog", "cat")


def test_load_images_refuses_a_class_without_images(idx_folder: Folder) -> None:
    with pytest.raises(DataError, match="class 'd' has no images"):
        load_images(idx_folder(), class_names=("a", "b", "c", "d"))


def test_load_splits_holds_out_what_is_missing(
    class_folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folder({"cat": 10, "dog": 10})
    train, test = load_splits(root, held_out=0.3, seed=1)
    assert (len(train), len(test)) == (14, 6)
    assert not set(train.ids) & set(test.ids)
    assert "30% of the training images are held out" in capsys.readouterr().err
    assert load_splits(root, held_out=0.3, seed=1)[1].ids == test.ids


def test_load_splits_reads_both_alike(class_folder: Folder) -> None:
    class_folder({"cat": 1, "dog": 1}, "pets/train", mode="RGB")
    root = class_folder({"cat": 1, "dog": 1}, "pets/test", mode="L").parent
    train, test = load_splits(root)
    assert train.shape == test.shape == (3, 10, 10)
    assert test.ids == ("test/cat/0.png", "test/dog/0.png")


def test_load_splits_refuses_two_shapes_and_a_bad_share(class_folder: Folder) -> None:
    class_folder({"cat": 1}, "pets/train")
    root = class_folder({"cat": 1}, "pets/test", size=(12, 12)).parent
    with pytest.raises(DataError, match="pass size="):
        load_splits(root)
    assert load_splits(root, size=10)[1].shape == (3, 10, 10)
    with pytest.raises(ConfigError, match="held_out"):
        load_splits(root, held_out=1.0)
