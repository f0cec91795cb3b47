"""Keys become the views and labels that the set itself gives for them, prepared as the model wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForImageClassification

from aerogel.condense.api import Condensed
from aerogel.condense.collation import DistillationCollator, ViewKey, ViewKeys
from aerogel.condense.condensed import CondensedSet
from aerogel.condense.families.classifier import ImageClassifier
from aerogel.condense.families.preparation import read_preparation
from aerogel.errors import ConfigError, MismatchError
from tests.unit.condense import tiny


@pytest.fixture
def data(finished: Condensed) -> CondensedSet:
    return finished.data


def test_a_batch_holds_the_views_of_its_keys(data: CondensedSet) -> None:
    collate = data.collator()
    batch = collate([ViewKey(3, 1), ViewKey(3, 4)])
    data.set_epoch(3)
    items = data.__getitems__([1, 4])
    views = torch.stack([item["view"] for item in items])
    mean, std = torch.tensor(data.mean).view(-1, 1, 1), torch.tensor(data.std).view(-1, 1, 1)
    assert torch.equal(batch["pixel_values"], (views - mean) / std)
    assert torch.equal(batch["soft_labels"], data.labels(views))
    assert batch["labels"].tolist() == [item["label"] for item in items]
    assert batch["partner_labels"].tolist() == [item["partner_label"] for item in items]
    assert batch["mixing_weights"].tolist() == [item["weight"] for item in items]


def test_keys_of_two_epochs_share_a_batch(data: CondensedSet) -> None:
    collate = DistillationCollator(data, soft=False)
    mixed = collate([ViewKey(0, 1), ViewKey(2, 1)])
    alone = [collate([ViewKey(epoch, 1)])["pixel_values"] for epoch in (0, 2)]
    assert torch.equal(mixed["pixel_values"], torch.cat(alone))
    assert not torch.equal(*alone)
    assert "soft_labels" not in mixed


def test_a_processor_is_followed_as_the_model_itself_would(data: CondensedSet, tmp_path: Path) -> None:
    folder = tiny.write_classifier(tmp_path / "vit")
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder)
    batch = data.collator(processor)([ViewKey(0, 0), ViewKey(0, 5)])
    assert batch["pixel_values"].shape == (2, 3, 16, 16)
    views, _ = data.views.render(data.images, 0, np.array([0, 5]))
    expected = ImageClassifier(model, read_preparation(processor.to_dict(), 3))(views)
    assert torch.equal(model(pixel_values=batch["pixel_values"]).logits, expected)


def test_grey_serves_as_rgb_and_not_the_reverse(data: CondensedSet) -> None:
    grey = data.collator()([ViewKey(0, 0)])["pixel_values"]
    assert torch.equal(data.collator(channels=3)([ViewKey(0, 0)])["pixel_values"], grey.expand(-1, 3, -1, -1))
    rgb = CondensedSet.__new__(CondensedSet)
    rgb.images, rgb.mean, rgb.std = data.images.expand(-1, 3, -1, -1), data.mean * 3, data.std * 3
    with pytest.raises(MismatchError, match="images of 3 channels; got one for 1"):
        DistillationCollator(rgb, channels=1)


def test_workers_render_but_do_not_label(data: CondensedSet) -> None:
    keys = ViewKeys(len(data))
    plain = DistillationCollator(data, soft=False)
    loader = DataLoader(keys, 3, collate_fn=plain, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        keys.set_epoch(epoch)
        first = next(iter(loader))
        expected = plain([ViewKey(epoch, sample) for sample in range(3)])
        assert torch.equal(first["pixel_values"], expected["pixel_values"])
    with pytest.raises(ConfigError, match="dataloader_num_workers=0"):
        next(iter(DataLoader(keys, 3, collate_fn=data.collator(), num_workers=1)))


def test_other_items_are_stacked_as_trainer_does(data: CondensedSet) -> None:
    items = [{"pixel_values": torch.zeros(1, 8, 8), "labels": 1} for _ in range(2)]
    found = data.collator()(items)
    assert found["pixel_values"].shape == (2, 1, 8, 8) and found["labels"].tolist() == [1, 1]


def test_keys_end() -> None:
    assert list(ViewKeys(2)) == [ViewKey(0, 0), ViewKey(0, 1)]
