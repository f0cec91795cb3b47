from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from aerogel.errors import DataError
from aerogel.zoo import named
from aerogel.zoo.idx import write_idx
from aerogel.zoo.named import (
    FASHION_MNIST,
    Digits,
    IdxFolder,
    find_fashion_mnist,
    name_idx_folder,
    suggest_names,
)
from aerogel.zoo.request import Request

Folder = Callable[..., Path]


def test_digits_have_the_fixed_split() -> None:
    train, test = Digits().read(Request()), Digits().read(Request(split="test"))
    assert (len(train), len(test)) == (1437, 360)
    assert not set(train.ids) & set(test.ids)
    assert train.class_names == tuple("0123456789")
    assert test.labels.bincount().min() >= 35
    assert train.ids[:3] == ("digits:0", "digits:1", "digits:2")


def test_digits_are_the_stored_ones_scaled() -> None:
    data = Digits().read(Request(split="test"))
    rows = [int(identifier.partition(":")[2]) for identifier in data.ids]
    bunch = load_digits()
    assert np.array_equal(data.images[:, 0].numpy(), np.rint(bunch.images[rows] * 255 / 16))
    assert np.array_equal(data.labels.numpy(), bunch.target[rows])


def test_digits_take_size_channels_and_names() -> None:
    data = Digits().read(Request(split="test", size=16, channels=3, class_names=tuple("9876543210")))
    assert data.shape == (3, 16, 16)
    plain = Digits().read(Request(split="test"))
    assert (data.labels == 9 - plain.labels).all()


def test_idx_folder_numbers_classes_by_the_training_labels(idx_folder: Folder) -> None:
    folder = idx_folder(classes=3)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.array([0, 1, 0, 1, 0, 1], np.uint8))
    source = IdxFolder(folder, "marks")
    assert source.splits() == ("train", "test")
    assert source.read(Request()).class_names == ("0", "1", "2")
    test = source.read(Request(split="test", size=8, channels=3))
    assert test.class_names == ("0", "1", "2")
    assert test.shape == (3, 8, 8)
    assert test.ids == tuple(f"test:{row}" for row in range(6))


def test_idx_folder_takes_given_names(idx_folder: Folder) -> None:
    folder = idx_folder()
    assert IdxFolder(folder, "marks").read(Request(class_names=("a", "b", "c"))).class_names == (
        "a",
        "b",
        "c",
    )
    with pytest.raises(DataError, match="labels from 0 to 2 for a list of 2"):
        IdxFolder(folder, "marks").read(Request(class_names=("a", "b")))


def test_idx_folder_without_the_split(idx_folder: Folder) -> None:
    folder = idx_folder(splits=("train",))
    with pytest.raises(DataError, match="'test' split"):
        IdxFolder(folder, "marks").read(Request(split="test"))


def test_fashion_mnist_from_the_data_folder(idx_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = idx_folder("fashion-mnist", classes=10)
    monkeypatch.setattr(named, "DEBIAN_DATA", folder.parent / "none")
    monkeypatch.setenv("AEROGEL_DATA", str(folder.parent))
    data = find_fashion_mnist().read(Request())
    assert data.class_names == FASHION_MNIST
    assert data.licence == "MIT"


def test_the_debian_package_goes_first(idx_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = idx_folder("fashion-mnist")
    monkeypatch.setattr(named, "DEBIAN_DATA", folder.parent)
    monkeypatch.setenv("AEROGEL_DATA", str(folder.parent / "elsewhere"))
    assert find_fashion_mnist().folder == folder


def test_fashion_mnist_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "DEBIAN_DATA", tmp_path)
    monkeypatch.delenv("AEROGEL_DATA", raising=False)
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        find_fashion_mnist()


def test_a_folder_of_that_name_is_known_by_it(idx_folder: Folder) -> None:
    assert name_idx_folder(idx_folder("fashion-mnist")).class_names == FASHION_MNIST
    assert name_idx_folder(idx_folder("marks")).class_names is None


def test_suggests_the_nearest_name() -> None:
    assert suggest_names("digit").startswith("did you mean 'digits'?")
    assert suggest_names("zzz").startswith("or name one of digits, fashion-mnist")
