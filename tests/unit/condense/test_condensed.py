"""A condensed set serves the same views to everyone, and labels from the very generator that was packed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from aerogel.condense.api import Condensed
from aerogel.condense.condensed import CondensedSet, load_condensed, load_generator, probe_logits
from aerogel.condense.config import FitConfig, StudentConfig
from aerogel.condense.families import load_backbone
from aerogel.condense.student import build_student, train_student
from aerogel.core.manifests import seal_text
from aerogel.errors import ConfigError, DataError, MismatchError
from tests.unit.condense import tiny
from tests.unit.zoo.fake_hub import FakeHub

BATCH = 4


def epoch(data: CondensedSet, number: int, workers: int) -> list[dict[str, Any]]:
    data.set_epoch(number)
    loader = DataLoader(
        data, batch_size=BATCH, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    return list(loader)


def test_a_loader_gives_the_same_bytes_with_and_without_workers(finished: Condensed) -> None:
    data = load_condensed(finished.data.folder)
    alone = epoch(data, 3, 0)
    assert [len(batch["label"]) for batch in alone] == [4, 2]
    assert alone[0]["view"].shape == (4, 1, 8, 8)
    assert alone[0]["view"].dtype == torch.float32
    for ours, theirs in zip(alone, epoch(data, 3, 2), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not torch.equal(alone[0]["view"], epoch(data, 4, 0)[0]["view"])


def test_an_item_is_the_view_that_the_addresses_say(finished: Condensed) -> None:
    data = load_condensed(finished.data.folder)
    samples = np.arange(len(data))
    mixed = next(
        number
        for number in range(50)
        if min(data.views.render(data.images, number, samples)[1].mixing_weight(8)) < 1
    )
    data.set_epoch(mixed)
    views, found = data.views.render(data.images, mixed, samples)
    for sample in range(len(data)):
        item = data[sample]
        assert torch.equal(item["view"], views[sample])
        assert item["sample"] == sample
        assert item["label"] == data.class_labels[sample]
        assert item["partner_label"] == data.class_labels[found.partners[sample]]
        assert item["weight"] == float(found.mixing_weight(8)[sample])


def test_labels_are_those_of_the_generator_that_was_trained(finished: Condensed) -> None:
    data = load_condensed(finished.data.folder)
    views = data.images.float() / 255.0
    with torch.no_grad():
        trained = finished.pipeline.generator.eval()(views)
    assert torch.allclose(data.labels(views), trained, atol=1e-4, rtol=1e-4)
    again = load_condensed(finished.data.folder)
    assert torch.equal(again.labels(views), data.labels(views))
    assert data.labels(views).shape == (6, 3)
    assert data.label_source.name == "generator"


def test_to_hf_gives_images_labels_and_ids(
    finished: Condensed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    table = finished.data.to_hf()
    assert table.column_names == ["image", "label", "source_id"]
    assert table["label"][:] == finished.data.class_labels.tolist()
    assert tuple(table["source_id"][:]) == finished.data.source_ids
    known = set(finished.pipeline.train.ids)
    assert set(finished.data.source_ids) <= known
    assert table[0]["image"].size == (8, 8)


def test_a_loaded_set_trains_a_student(finished: Condensed) -> None:
    data = load_condensed(finished.data.folder)
    config = StudentConfig(width=8, depth=1, fit=FitConfig(epochs=12, batch_size=3, lr=0.01))
    student = build_student(data.training_set(), config, 0)
    losses = [
        state.loss for state in train_student(student, data.training_set(), data.label_source, config, seed=0)
    ]
    assert losses[-1] < 0.5 * losses[0]
    student.eval()
    with torch.no_grad():
        guesses = student(data.images.float() / 255.0).argmax(1)
    assert (guesses == data.class_labels).float().mean() > 0.6


def test_a_backbone_of_other_weights_is_refused_before_the_adapter_is_opened(
    finished: Condensed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("the adapter was opened")

    monkeypatch.setattr("aerogel.condense.condensed.load_adapter", unexpected)
    right = load_backbone(tiny.BACKBONE)
    for other in (tiny.stripes(), replace(right, sha256="0" * 64)):
        with pytest.raises(
            MismatchError, match=r"expected backbone aerogel/shapes-resnet8 .*what to do: install"
        ):
            load_generator(finished.data, other)


def test_a_generator_that_gives_other_labels_than_recorded_is_refused(archive: Path) -> None:
    data = json.loads((archive / "manifest.json").read_text())
    data.pop("seal")
    data["facts"]["probe"][0][0] += 0.5 * max(abs(value) for row in data["facts"]["probe"] for value in row)
    (archive / "manifest.json").write_text(seal_text(data))
    opened = load_condensed(archive)
    with pytest.raises(MismatchError, match="logits recorded in the manifest"):
        opened.labels(opened.images.float() / 255.0)
    data["facts"]["probe"] = data["facts"]["probe"] * 2
    (archive / "manifest.json").write_text(seal_text(data))
    with pytest.raises(MismatchError, match=r"logits of shape"):
        _ = load_condensed(archive).generator


def test_the_probe_is_what_the_manifest_records(finished: Condensed) -> None:
    probe = torch.tensor(finished.data.manifest.facts["probe"])
    found = probe_logits(finished.data.generator, finished.data.images, len(probe))
    assert torch.allclose(found, probe, atol=1e-3)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return FakeHub(tmp_path / "hub", tmp_path / "snapshots").install(monkeypatch)


def test_a_set_comes_back_from_the_hub(finished: Condensed, hub: FakeHub) -> None:
    assert finished.push_to_hub("anna/tiny", private=True) == "https://hub.test/datasets/anna/tiny"
    (hub.root / "anna/tiny/data/train-00001-of-00002.parquet").write_bytes(b"of an earlier set")
    finished.data.push_to_hub("anna/tiny")
    assert len(list((hub.root / "anna/tiny/data").iterdir())) == 1
    found = load_condensed("anna/tiny", revision="v1")
    assert found.manifest.digest == finished.data.manifest.digest
    assert torch.equal(found.images, finished.data.images)
    views = torch.rand(2, 1, 8, 8)
    assert torch.equal(found.labels(views), finished.data.labels(views))
    assert hub.asked("download")[0]["revision"] == "v1"


def test_a_folder_goes_before_the_hub(finished: Condensed, hub: FakeHub, tmp_path: Path) -> None:
    shutil.copytree(finished.data.folder, tmp_path / "anna" / "tiny")
    assert len(load_condensed("anna/tiny")) == len(finished.data)
    assert hub.calls == []
    with pytest.raises(ConfigError, match="leave revision out"):
        load_condensed("anna/tiny", revision="v1")


def test_a_name_that_is_nowhere_is_refused(hub: FakeHub) -> None:
    hub.offline = True
    with pytest.raises(DataError, match=r"'anna/none' of the hub.*cannot be reached"):
        load_condensed("anna/none")
    with pytest.raises(DataError, match="a folder at none; got none"):
        load_condensed("none")
