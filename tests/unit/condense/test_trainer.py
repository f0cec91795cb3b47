"""Trainer trains a stock classifier on a condensed set, another view of every image in each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments

from aerogel.condense.api import Condensed
from aerogel.condense.collation import ViewKey
from aerogel.condense.condensed import CondensedSet
from aerogel.condense.labels import mixed_cross_entropy
from aerogel.condense.trainer import DistillationTrainer
from aerogel.errors import ConfigError, MismatchError
from tests.unit.condense import tiny


@pytest.fixture
def data(finished: Condensed) -> CondensedSet:
    return finished.data


def arguments(out: Path, **changes: Any) -> TrainingArguments:
    plain = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 0}
    return TrainingArguments(str(out), **{**plain, "per_device_train_batch_size": 3, **changes})


def make(data: CondensedSet, folder: Path, **settings: Any) -> DistillationTrainer:
    tiny.write_classifier(folder / "vit")
    model = AutoModelForImageClassification.from_pretrained(folder / "vit")
    processor = AutoImageProcessor.from_pretrained(folder / "vit")
    changes = settings.pop("changes", {})
    return DistillationTrainer(
        model, arguments(folder / "out", **changes), data=data, processor=processor, **settings
    )


def test_two_epochs_show_other_views_and_train(data: CondensedSet, tmp_path: Path) -> None:
    trainer = make(data, tmp_path, changes={"num_train_epochs": 2, "learning_rate": 1e-2})
    seen: list[ViewKey] = []
    collate = trainer.data_collator
    trainer.data_collator = lambda items: (seen.extend(items), collate(items))[1]
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.train().global_step == 4
    assert sorted(seen) == [ViewKey(epoch, sample) for epoch in (0, 1) for sample in range(len(data))]
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_a_resumed_training_shows_the_epochs_that_are_left(data: CondensedSet, tmp_path: Path) -> None:
    saving = {"num_train_epochs": 1, "save_strategy": "epoch"}
    make(data, tmp_path, changes=saving).train()
    trainer = make(data, tmp_path, changes={**saving, "num_train_epochs": 2})
    seen: list[ViewKey] = []
    collate = trainer.data_collator
    trainer.data_collator = lambda items: (seen.extend(items), collate(items))[1]
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert {key.epoch for key in seen} == {1}


def test_the_loss_is_the_papers(data: CondensedSet, tmp_path: Path) -> None:
    trainer = make(data, tmp_path, ce_weight=0.3)
    batch = trainer.data_collator([ViewKey(0, sample) for sample in range(4)])
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    hard = mixed_cross_entropy(
        outputs.logits, batch["labels"], batch["partner_labels"], batch["mixing_weights"]
    )
    expected = functional.mse_loss(outputs.logits, batch["soft_labels"]) + 0.3 * hard
    assert torch.allclose(loss, expected)


def test_accumulated_steps_weigh_as_one(data: CondensedSet, tmp_path: Path) -> None:
    changes = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1}
    whole = make(data, tmp_path, changes={**changes, "per_device_train_batch_size": 6})
    parts = make(data, tmp_path, changes={**changes, "gradient_accumulation_steps": 2})
    for trainer in (whole, parts):
        trainer.train()
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_evaluation_is_trainers_own(data: CondensedSet, tmp_path: Path) -> None:
    items = [{"pixel_values": torch.zeros(3, 16, 16), "labels": 1} for _ in range(4)]
    trainer = make(
        data,
        tmp_path,
        eval_dataset=items,
        compute_metrics=lambda found: {"seen": float(len(found.label_ids))},
    )
    found = trainer.evaluate()
    assert found["eval_seen"] == 4.0 and found["eval_loss"] > 0


def test_what_does_not_fit_is_refused(data: CondensedSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="also train_dataset"):
        make(data, tmp_path, train_dataset=[])
    tiny.write_classifier(tmp_path / "four", names=("a", "b", "c", "d"))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "four")
    with pytest.raises(MismatchError, match="a model of 3 classes; got 4"):
        DistillationTrainer(model, arguments(tmp_path), data=data)
