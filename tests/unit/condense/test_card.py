"""The card's head is what the hub and the datasets library read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from PIL import Image

from aerogel.condense.api import Condensed
from aerogel.condense.archive import IMAGES
from aerogel.condense.card import categorise_size, identify_licence, write_metadata


def read_head(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_load_dataset_finds_images_and_classes(archive: Path, finished: Condensed, tmp_path: Path) -> None:
    found = datasets.load_dataset(str(archive), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == len(finished.data)
    assert found.features["label"].names == list(finished.data.class_names)
    assert isinstance(found[0]["image"], Image.Image)
    assert found["label"][:] == finished.data.class_labels.tolist()
    assert found["source_id"][:] == list(finished.data.source_ids)
    plain = datasets.Dataset.from_parquet(str(archive / IMAGES), cache_dir=str(tmp_path / "plain"))
    assert found.features == plain.features


def test_the_head_says_what_the_hub_asks_for(archive: Path) -> None:
    head = read_head(archive)
    assert head["license"] == "other" and head["license_name"] == "public domain"
    assert head["task_categories"] == ["image-classification"]
    assert head["size_categories"] == ["n<1K"]
    assert head["dataset_info"]["download_size"] == (archive / IMAGES).stat().st_size
    assert head["dataset_info"]["splits"][0]["num_examples"] == 6


def test_class_names_cannot_break_the_head(archive: Path, finished: Condensed) -> None:
    odd = ["a: b\n---\n# x", "yes", "42", "été 'q' \"z\""]
    facts = {**finished.data.manifest.facts, "class_names": odd}
    head = yaml.safe_load(write_metadata(facts, archive / IMAGES))
    names = head["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert list(names.values()) == odd


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("MIT licence", "mit"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("not stated", "unknown"),
        ("our own terms", "other"),
    ],
)
def test_licences_get_the_hubs_names(text: str, name: str) -> None:
    assert identify_licence(text) == name


def test_sizes_get_the_hubs_names() -> None:
    assert [categorise_size(n) for n in (999, 1000, 50_000, 10**6)] == [
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "1M<n<10M",
    ]
