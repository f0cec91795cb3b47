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


def test_the_features_are_means_over_the_cells_of_a_grid() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network, _ = load_weights(tiny.BACKBONE)
    maps = network.maps((images - 0.5) * 4.0)
    one, two = load_shipped(tiny.BACKBONE, size=15), load_shipped(tiny.BACKBONE, size=16)
    assert (one.grid, two.grid, load_shipped(tiny.BACKBONE, 1, size=16).grid) == (1, 2, 1)
    assert two.features == 4 * one.features
    cells = [maps[:, :, top : top + 4, left : left + 4].mean((2, 3)) for top in (0, 4) for left in (0, 4)]
    assert torch.allclose(two.module(images), torch.stack(cells, 2).flatten(1), atol=1e-5)
    assert torch.allclose(one.module(images), torch.stack(cells).mean(0), atol=1e-5)
    assert one.sha256 == two.sha256


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
