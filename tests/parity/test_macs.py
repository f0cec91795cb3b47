"""MACs and parameters against published values, against formulas worked out by hand, and against ptflops."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aerogel.measure import count_macs, count_parameters
from aerogel.measure.macs import MacCount


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., arXiv 1512.03385, fig. 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Sequential:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [block for a, b, s in widths for block in (Block(a, b, s), Block(b, b, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def test_resnet18_has_its_published_size_and_cost() -> None:
    model = resnet18()
    assert count_parameters(model).value == 11_689_512
    counted = count_macs(model, (1, 3, 224, 224))
    assert counted == MacCount(linear=1_814_073_344, attention=0)
    assert counted.measurements()[0].text == "1.814 GMACs"
    assert count_macs(model, (4, 3, 224, 224)).linear == 4 * counted.linear


def test_ptflops_agrees_on_resnet18() -> None:
    ptflops = pytest.importorskip("ptflops")
    model = resnet18().eval()
    plain = [nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d]
    with torch.no_grad():
        macs, parameters = ptflops.get_model_complexity_info(
            model,
            (3, 224, 224),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            ignore_modules=plain,
        )
    assert parameters == count_parameters(model).value
    # ptflops adds a MAC for each of the 1,000 biases of the last layer, and the ReLUs called as functions.
    assert macs == pytest.approx(count_macs(model, (1, 3, 224, 224)).linear, rel=2e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_vit_b16_by_formula(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(num_labels=1000, attn_implementation=attention)
    with torch.device("meta"):
        model = transformers.ViTForImageClassification(config)
    assert count_parameters(model).value == 86_567_656

    width, hidden, layers, patch, classes = 768, 3072, 12, 16, 1000
    patches = (224 // patch) ** 2
    tokens = patches + 1
    linear = patches * 3 * patch * patch * width
    linear += layers * tokens * (4 * width * width + 2 * width * hidden)
    linear += width * classes
    products = layers * 2 * tokens * tokens * width
    counted = count_macs(model, (1, 3, 224, 224))
    assert counted == MacCount(linear=linear, attention=products)
    assert (f"{counted.linear / 1e9:.2f}", f"{counted.with_attention / 1e9:.2f}") == ("16.85", "17.56")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sam_encoder_by_formula(attention: str) -> None:
    """Windows padded at the border, relative positions and a convolutional neck."""
    transformers = pytest.importorskip("transformers")
    width, layers, mlp, side, window, neck = 32, 4, 64, 10, 4, 16
    config = transformers.SamVisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        mlp_dim=mlp,
        image_size=side * 16,
        window_size=window,
        global_attn_indexes=[1, 3],
        output_channels=neck,
        attn_implementation=attention,
    )
    model = transformers.SamVisionModel(config)
    tokens, padded = side * side, (-(-side // window) * window) ** 2
    linear = tokens * 3 * 256 * width
    linear += layers * tokens * 2 * width * mlp
    linear += 2 * (tokens + padded) * 4 * width * width
    linear += tokens * width * neck + tokens * 9 * neck * neck
    products = 2 * (tokens * 2 * tokens * width + padded * 2 * window**2 * width)
    # Relative positions: every query against one vector per row and one per column of its window.
    products += 2 * (tokens * 2 * side * width + padded * 2 * window * width)
    assert count_macs(model, (1, 3, side * 16, side * 16)) == MacCount(linear=linear, attention=products)


def test_shapes_alone_equal_the_math_kernel_on_real_tensors() -> None:
    """On the CPU the counter sees nothing in fused attention; with the MATH kernel it sees all of it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    pixels = torch.zeros(1, 3, 64, 64)

    def run() -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(pixels)
        return int(counter.get_total_flops()) // 2

    fused = run()
    with sdpa_kernel(SDPBackend.MATH):
        math = run()
    counted = count_macs(model, pixels)
    assert counted.with_attention == math
    assert math - fused == counted.attention > 0
