"""Padding is TensorFlow's, and a network that is told to pad inside computes what it did."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from aerogel.condense.families.same_padding import SameConv2d, pad_inside


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (6, 5, 2)]
)
def test_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """Of an even size with stride 2, nothing is added before the first pixel of a 3x3 convolution."""
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    shown = torch.rand(1, 1, size, size)
    outputs = -(-size // stride)
    lacking = max((outputs - 1) * stride + kernel - size, 0)
    before = lacking // 2
    padded = functional.pad(shown, (before, lacking - before, before, lacking - before))
    expected = functional.conv2d(padded, layer.weight, stride=stride)
    found = layer(shown)
    assert found.shape[-1] == outputs
    assert torch.allclose(found, expected)
    if (size, kernel, stride) == (8, 3, 2):
        assert before == 0


@pytest.mark.parametrize("settings", [{}, {"output_stride": 8}, {"tf_padding": False}])
@pytest.mark.parametrize("size", [32, 45])
def test_a_mobilenet_that_pads_inside_computes_the_same(settings: dict[str, Any], size: int) -> None:
    from transformers import MobileNetV2Config, MobileNetV2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1, min_depth=4, **settings)).eval()
        for value in model.parameters():
            if value.ndim > 1:
                nn.init.kaiming_normal_(value)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    ours = pad_inside(copy.deepcopy(model))
    with torch.no_grad():
        expected, found = (each(pixel_values=images).last_hidden_state for each in (model, ours))
    assert expected.std() > 1e-3
    assert torch.equal(found, expected)
    assert list(ours.state_dict()) == list(model.state_dict())
    padded = [layer for layer in ours.modules() if isinstance(layer, SameConv2d)]
    assert bool(padded) is bool(settings.get("tf_padding", True))
