"""The head of a dataset card: what the Hugging Face hub and its datasets library read about a set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

DATA_FILES = "data/train-*.parquet"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_LICENCES = {
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "mit",
    "odbl",
    "pddl",
    "unlicense",
}
_LICENCES_UNKNOWN = {"", "not-stated", "unknown"}


def write_metadata(facts: Mapping[str, Any], images: Path) -> str:
    """Return the YAML head of the card of a set: licence, size, task, and the columns of ``images``.

    ``facts`` are those of the set's manifest, ``images`` its parquet file. With this head
    `datasets.load_dataset(folder)` finds images and class names in the one file that holds them.
    """
    names = {str(index): str(name) for index, name in enumerate(facts["class_names"])}
    arrow_bytes = pq.read_table(images).nbytes
    head = {
        "license": identify_licence(facts["source"]["licence"]),
        "task_categories": ["image-classification"],
        "size_categories": [categorise_size(facts["images"])],
        "tags": ["dataset-distillation", "aerogel"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILES}]}],
        "dataset_info": {
            "features": [
                {"name": "image", "dtype": "image"},
                {"name": "label", "dtype": {"class_label": {"names": names}}},
                {"name": "source_id", "dtype": "string"},
            ],
            "splits": [
                {
                    "name": "train",
                    "num_bytes": arrow_bytes,
                    "num_examples": facts["images"],
                }
            ],
            "download_size": images.stat().st_size,
            "dataset_size": arrow_bytes,
        },
    }
    if head["license"] == "other":
        head = {"license": "other", "license_name": str(facts["source"]["licence"]), **head}
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=2**20)
    return text


def identify_licence(text: str) -> str:
    """Return the hub's name for a licence: "unknown" without one, "other" for one that it has no name for."""
    name = re.sub(r"[\s_]+", "-", text.strip().lower()).removesuffix("-licence").removesuffix("-license")
    if name in _LICENCES_UNKNOWN:
        return "unknown"
    return name if name in _LICENCES else "other"


def categorise_size(images: int) -> str:
    """Return the hub's name for a number of examples."""
    return next((name for limit, name in _SIZES if images < limit), _LARGEST)
