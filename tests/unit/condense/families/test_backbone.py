"""A backbone is found by its name, and its hash tells weights apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from aerogel.condense.families import load_backbone
from aerogel.condense.families.backbone import choose_grid, hash_weights
from aerogel.errors import DataError, UnknownNameError
from tests.unit.condense import tiny


def test_a_name_of_the_zoo_a_folder_and_nothing(tmp_path: Path) -> None:
    assert load_backbone(tiny.BACKBONE).text is None
    assert load_backbone(str(tiny.write_clip(tmp_path / "clip"))).text is not None
    assert load_backbone(tiny.BACKBONE, 3).grid == 3
    assert load_backbone(str(tmp_path / "clip"), size=99).grid == 1
    assert load_backbone(str(tmp_path / "clip"), 2).features == 5 * 12
    with pytest.raises(DataError, match="EfficientNet-Lite0"):
        load_backbone(str(tmp_path / "clip" / "model.safetensors"))
    with pytest.raises(DataError, match="EfficientNet-Lite0"):
        load_backbone(str(tmp_path / "clip" / "config.json"))
    with pytest.raises(UnknownNameError, match="shapes-resnet8"):
        load_backbone("aerogel/shapes-resnet9")
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE"):
        load_backbone("nobody/no-such-model")


def test_the_hash_sees_every_change_of_the_weights() -> None:
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    assert hash_weights(one) == hash_weights(two)
    changed = nn.Linear(3, 2)
    changed.load_state_dict(one.state_dict())
    with torch.no_grad():
        changed.bias[1] = torch.nextafter(changed.bias[1], torch.tensor(9.0))
    reshaped = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        reshaped.weight.copy_(one.weight.reshape(3, 2))
    others = [changed, reshaped, nn.Linear(3, 2).double(), nn.Sequential(one), nn.BatchNorm2d(2)]
    assert len({hash_weights(module) for module in [one, *others]}) == 6


def test_a_grid_suits_images_that_have_places() -> None:
    assert [choose_grid(size) for size in (0, 15, 16, 224)] == [1, 1, 2, 2]
