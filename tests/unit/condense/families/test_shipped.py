"""The backbone in the wheel takes grey and colour of any size and is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aerogel.condense.families.shipped import load_shipped
from aerogel.errors import UnknownNameError
from aerogel.zoo.backbones import load_weights
from tests.unit.condense import tiny


@pytest.mark.parametrize("size", [8, 28, 33])
def test_grey_equals_the_same_image_in_three_channels(size: int) -> None:
    backbone = load_shipped(tiny.BACKBONE)
    grey = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone.module(grey)
    assert features.shape == (2, backbone.features)
    assert torch.equal(features, backbone.module(grey.repeat(1, 3, 1, 1)))
    assert features.std() > 1e-3


def test_images_are_centred_as_in_its_training() -> None:
    network, size_bytes = load_weights(tiny.BACKBONE)
    backbone = load_shipped(tiny.BACKBONE)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone.module(images), network((images - 0.5) * 4.0))
    assert backbone.size_bytes == size_bytes


def test_it_is_frozen_and_all_its_convolutions_can_change() -> None:
    backbone = load_shipped(tiny.BACKBONE)
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert not backbone.module.training
    layers = dict(backbone.module.named_modules())
    assert set(backbone.lora_targets) == {
        key for key, layer in layers.items() if isinstance(layer, nn.Conv2d)
    }
    assert backbone.sha256 == load_shipped(tiny.BACKBONE).sha256


def test_another_name_is_refused() -> None:
    with pytest.raises(UnknownNameError):
        load_shipped("aerogel/none")
