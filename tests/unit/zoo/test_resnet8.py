"""The shipped architecture: its size by formula, its shapes, and residual blocks that add."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from aerogel.zoo.resnet8 import Block, ResNet8


@pytest.mark.parametrize("width", [4, 16])
def test_parameters_by_formula(width: int) -> None:
    w = width
    stem = 27 * w + 2 * w
    first = 2 * 9 * w * w + 4 * w
    second = 9 * (w * 2 * w + 2 * w * 2 * w) + 2 * 4 * w + w * 2 * w
    third = 9 * (2 * w * 4 * w + 4 * w * 4 * w) + 2 * 8 * w + 2 * w * 4 * w
    network = ResNet8(width)
    assert sum(parameter.numel() for parameter in network.parameters()) == stem + first + second + third


@pytest.mark.parametrize("size", [8, 9, 32, 40])
def test_features_of_any_size_have_one_length(size: int) -> None:
    assert ResNet8(4).eval()(torch.rand(2, 3, size, size)).shape == (2, 16)


def test_blocks_add_their_shortcut() -> None:
    features = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    same = Block(4, 4, 1).eval()
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(features), functional.relu(features))
    wider = Block(4, 8, 2).eval()
    nn.init.zeros_(wider.conv2.weight)
    assert wider(features).shape == (2, 8, 3, 3)
    assert torch.equal(wider(features), functional.relu(wider.project(features)))
    assert sum(parameter.numel() for parameter in wider.project.parameters()) == 32


def test_features_of_an_image_do_not_depend_on_its_neighbours() -> None:
    network = ResNet8(4).eval()
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(images)[3:4], network(images[3:4]), atol=1e-6)
