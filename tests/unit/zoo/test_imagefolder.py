from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aerogel.errors import DataError
from aerogel.zoo.imagefolder import ImageFolder
from aerogel.zoo.request import Request

Folder = Callable[..., Path]


def test_classes_are_folders_in_sorted_order(class_folder: Folder) -> None:
    data = ImageFolder(class_folder({"dog": 2, "cat": 1})).read(Request())
    assert data.class_names == ("cat", "dog")
    assert data.ids == ("cat/0.png", "dog/0.png", "dog/1.png")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [10, 0, 1]
    assert data.name == "pets"


def test_flat_folder_has_no_test_split(class_folder: Folder) -> None:
    source = ImageFolder(class_folder({"cat": 1}))
    assert source.splits() == ("train",)
    with pytest.raises(DataError, match="'test' split"):
        source.read(Request(split="test"))


def test_split_folders(class_folder: Folder) -> None:
    class_folder({"cat": 1, "dog": 2}, "pets/train")
    root = class_folder({"cat": 2, "dog": 1}, "pets/val").parent
    source = ImageFolder(root)
    assert source.splits() == ("train", "test")
    assert source.read(Request()).ids == ("train/cat/0.png", "train/dog/0.png", "train/dog/1.png")
    assert source.read(Request(split="test")).ids == ("val/cat/0.png", "val/cat/1.png", "val/dog/0.png")


def test_a_class_may_be_called_train(class_folder: Folder) -> None:
    data = ImageFolder(class_folder({"train": 1, "bus": 1})).read(Request())
    assert data.class_names == ("bus", "train")
    only = ImageFolder(class_folder({"train": 1, "test": 1}, "odd")).read(Request())
    assert only.class_names == ("test", "train")


def test_test_split_is_held_to_the_training_classes(class_folder: Folder) -> None:
    class_folder({"cat": 1, "dog": 1}, "pets/train")
    root = class_folder({"cat": 1, "fox": 1}, "pets/test").parent
    with pytest.raises(DataError) as caught:
        ImageFolder(root).read(Request(split="test"))
    assert "class 'dog' has no folder" in str(caught.value)
    assert "folder 'fox' is not in the class list of 2" in str(caught.value)


def test_given_class_list_sets_the_order(class_folder: Folder) -> None:
    source = ImageFolder(class_folder({"cat": 1, "dog": 1}))
    data = source.read(Request(class_names=("dog", "cat")))
    assert data.ids == ("dog/0.png", "cat/0.png")
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="class 'cow' has no folder"):
        source.read(Request(class_names=("cat", "dog", "cow")))


def test_problems_are_listed_together(class_folder: Folder, png: Callable[..., bytes]) -> None:
    root = class_folder({"cat": 1, "dog": 1, "empty": 0})
    (root / "loose.JPG").write_bytes(png(1))
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "dog" / "dot.png").write_bytes(png(1, size=(1, 1)))
    (root / "dog" / "more").symlink_to(root / "cat")
    with pytest.raises(DataError) as caught:
        ImageFolder(root).read(Request())
    message = str(caught.value)
    for words in (
        "loose.JPG",
        "cat/notes.txt: not an image",
        "dog/dot.png: 1x1 px",
        "'empty'",
        "more: a linked",
    ):
        assert words in message


def test_nested_files_are_read_and_hidden_ones_and_leavings_are_not(
    class_folder: Folder, png: Callable[..., bytes]
) -> None:
    root = class_folder({"cat": 1})
    (root / "cat" / "deep").mkdir()
    (root / "cat" / "deep" / "x.png").write_bytes(png(3))
    (root / ".cache").mkdir()
    (root / "cat" / ".hidden.png").write_text("no picture")
    (root / "cat" / "Thumbs.db").write_text("no picture")
    (root / "README.md").write_text("about")
    assert ImageFolder(root).read(Request()).ids == ("cat/0.png", "cat/deep/x.png")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no classes"):
        ImageFolder(tmp_path).read(Request())
