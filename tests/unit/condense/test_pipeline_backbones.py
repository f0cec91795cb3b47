"""Whole runs with backbones from folders, whose sets are opened where these lie elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aerogel.condense.condensed import load_condensed
from aerogel.condense.pipeline import Pipeline
from aerogel.errors import DataError, MismatchError
from tests.unit.condense import tiny
from tests.unit.condense.families import tiny_towers


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_run_and_its_set_when_the_backbone_has_moved(kind: str, tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path / "here", kind)
    fit = {"epochs": 8, "batch_size": 16, "lr": 0.02}
    config = tiny.config(ipc=8, projector={"backbone": str(folder), "rank": 2, "fit": fit})
    data = Pipeline(config, tiny.sources(size=16), tmp_path / "run").archive
    facts = data.manifest.facts["backbone"]
    assert (facts["name"], facts["grid"]) == (str(folder), 2)
    views = data.images.float() / 255.0
    labels = data.labels(views)
    assert labels.shape == (24, 3)

    place = tmp_path / "run" / "archive"
    assert torch.equal(load_condensed(place).labels(views), labels)
    folder.rename(tmp_path / "there")
    gone = load_condensed(place)
    with pytest.raises(DataError, match=rf"with weights {facts['sha256']}; got none .*backbone=PATH"):
        gone.labels(views)
    moved = load_condensed(place, backbone=tmp_path / "there")
    assert torch.equal(moved.labels(views), labels)
    other = tiny_towers.write_network(tmp_path / "other", kind)
    tiny_towers.write_processor(other, image_mean=[0.1, 0.1, 0.1])
    with pytest.raises(MismatchError, match=rf"expected backbone .* with weights {facts['sha256'][:12]}"):
        load_condensed(place, backbone=other).labels(views)
