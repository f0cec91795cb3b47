"""The weights in the wheel are the ones their card describes, and they have learnt something."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aerogel.errors import IntegrityError, MismatchError, UnknownNameError
from aerogel.zoo import cards
from aerogel.zoo.backbones import load_weights
from aerogel.zoo.cards import CARDS
from aerogel.zoo.shapes import draw_shapes

WEIGHTS = files("aerogel.zoo") / "weights"
BACKBONES = [name for name in CARDS.names() if CARDS.get(name).kind == "backbone"]


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_load_as_stored_and_ready_to_use(name: str) -> None:
    before = torch.get_rng_state()
    network, size_bytes = load_weights(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    with cards.as_file(WEIGHTS / CARDS.get(name).file) as path:
        assert size_bytes == path.stat().st_size
        stored = load_file(path)
    state = network.state_dict()
    assert {key for key in state if not key.endswith("num_batches_tracked")} == set(stored)
    for key, value in stored.items():
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], value.float())


@pytest.mark.parametrize("name", BACKBONES)
def test_features_tell_textures_apart(name: str) -> None:
    """A nearest-mean classifier on the features beats chance, one in eight, by far."""
    network, _ = load_weights(name)
    batch = draw_shapes(np.arange(400) + 10**9, size=24)
    with torch.no_grad():
        features = network((torch.from_numpy(batch.images) - 0.5) / 0.25)
    assert features.shape == (400, 4 * network.width)
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-3)
    labels = torch.from_numpy(batch.textures)
    means = torch.stack([features[:200][labels[:200] == label].mean(0) for label in range(8)])
    found = torch.cdist(features[200:], means).argmin(1)
    assert float((found == labels[200:]).float().mean()) > 0.35


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="aerogel/shapes-resnet8"):
        load_weights("aerogel/shapes-resnet9")


def test_a_pipeline_is_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    card = CARDS.get("aerogel/shapes-resnet8")
    monkeypatch.setitem(CARDS._items, "aerogel/drawer", replace(card, kind="pipeline"))
    with pytest.raises(MismatchError, match="name of a backbone; got aerogel/drawer, a pipeline"):
        load_weights("aerogel/drawer")


def test_a_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = CARDS.get("aerogel/shapes-resnet8")
    damaged = bytearray((WEIGHTS / card.file).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / card.file).write_bytes(damaged)
    monkeypatch.setattr(cards, "files", lambda _: tmp_path)
    with pytest.raises(IntegrityError, match=f"{card.file} with SHA-256 {card.sha256[:12]}; got "):
        load_weights("aerogel/shapes-resnet8")
