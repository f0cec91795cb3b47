from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from aerogel.errors import DataError, MissingDependencyError
from aerogel.zoo import hub
from aerogel.zoo.hub import HubDataset, SavedDataset
from aerogel.zoo.request import Request

Png = Callable[..., bytes]


def make_dataset(
    pictures: list[bytes | None], labels: list[Any], names: list[str] | None = None
) -> datasets.Dataset:
    label = datasets.ClassLabel(names=names) if names else datasets.Value("string")
    features = datasets.Features(image=datasets.Image(), label=label)
    rows = {"image": [{"bytes": p, "path": None} for p in pictures], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def saved(tmp_path: Path, png: Png) -> Path:
    names = ["cat", "dog"]
    train = make_dataset([png(1), png(2), png(3)], [1, 0, 1], names)
    test = make_dataset([png(4), png(5)], [0, 1], names)
    datasets.DatasetDict(train=train, validation=test).save_to_disk(tmp_path / "pets")
    return tmp_path / "pets"


def test_saved_splits(saved: Path) -> None:
    source = SavedDataset(saved)
    assert source.splits() == ("train", "test")
    train, test = source.read(Request()), source.read(Request(split="test"))
    assert train.ids == ("train:0", "train:1", "train:2")
    assert test.ids == ("validation:0", "validation:1")
    assert train.labels.tolist() == [1, 0, 1]
    assert train.class_names == test.class_names == ("cat", "dog")
    assert test.images[:, 0, 0, 0].tolist() == [4, 5]


def test_saved_without_splits_is_training_data(tmp_path: Path, png: Png) -> None:
    make_dataset([png(1), png(2)], ["b", "a"]).save_to_disk(tmp_path / "pets")
    source = SavedDataset(tmp_path / "pets")
    assert source.splits() == ("train",)
    data = source.read(Request())
    assert (data.class_names, data.labels.tolist()) == (("a", "b"), [1, 0])


def test_class_order_can_be_given(saved: Path) -> None:
    assert SavedDataset(saved).read(Request(class_names=("dog", "cat"))).labels.tolist() == [0, 1, 0]


def test_bad_rows_are_listed_together(tmp_path: Path, png: Png) -> None:
    make_dataset([png(1), b"junk", png(2)], [0, 0, None], ["cat", "dog"]).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError) as caught:
        SavedDataset(tmp_path / "pets").read(Request())
    for words in ("train:1: not an image", "train:2: no label", "'dog' has no"):
        assert words in str(caught.value)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match="saved dataset"):
        SavedDataset(tmp_path).splits()


def test_hub_reads_through_datasets(monkeypatch: pytest.MonkeyPatch, png: Png) -> None:
    splits = {"train": make_dataset([png(1), png(2)], [0, 1], ["cat", "dog"])}
    splits["test"] = make_dataset([png(3), png(4)], [1, 0], ["cat", "dog"])
    asked = []

    def load(name: str, configuration: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        return splits[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, configuration: list(splits))
    source = HubDataset("owner/pets", "small")
    assert source.splits() == ("train", "test")
    assert source.read(Request(split="test")).labels.tolist() == [1, 0]
    assert set(asked) == {("owner/pets", "small", "test"), ("owner/pets", "small", "train")}


def test_hub_without_an_answer_says_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        HubDataset("owner/none").splits()
    for words in ("'owner/none'", "the network", "digits, fashion-mnist"):
        assert words in str(caught.value)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(hub, "import_module", refuse)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[condense\]"):
        HubDataset("owner/pets").splits()
