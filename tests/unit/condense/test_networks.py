"""The networks are those of the literature, and their weights depend on their seed alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import TeacherConfig
from aerogel.condense.networks import (
    NETWORKS,
    Bottleneck,
    Classifier,
    ConvNet,
    ResidualBlock,
    ResNet18,
    ResNet50,
    build_classifier,
)
from aerogel.errors import UnknownNameError


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def build(name: str = "convnet", *, seed: int = 0, channels: int = 3, size: int = 8) -> Classifier:
    mean, std = (0.4,) * channels, (0.2,) * channels
    width = 6 if name in ("vit-t", "swin-t") else 4
    return build_classifier(
        name, channels=channels, classes=5, size=size, width=width, depth=2, mean=mean, std=std, seed=seed
    )


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(("channels", "size", "published"), [(1, 28, 317_706), (3, 32, 320_010)])
def test_convnet_has_the_published_parameters(channels: int, size: int, published: int) -> None:
    first = 128 * channels * 9 + 128
    later = 128 * 128 * 9 + 128
    norms = 3 * 2 * 128
    linear = 128 * 4 * 4 * 10 + 10  # 28 pixels padded to 32, as 32, are halved three times
    assert first + 2 * later + norms + linear == published
    assert count(ConvNet(channels=channels, classes=10, size=size)) == published


@pytest.mark.parametrize(("size", "classes", "published"), [(32, 10, 11_173_962), (224, 1000, 11_689_512)])
def test_resnet18_has_the_published_parameters(size: int, classes: int, published: int) -> None:
    with torch.device("meta"):
        network = ResNet18(channels=3, classes=classes, size=size)
    stem = 64 * 3 * (9 if size < 96 else 49)
    convolutions, norms = stem, 2 * 64
    inputs = 64
    for outputs in (64, 128, 256, 512):
        convolutions += 9 * (inputs * outputs + 3 * outputs * outputs)
        norms += 4 * 2 * outputs
        if outputs != inputs:
            convolutions += inputs * outputs
            norms += 2 * outputs
        inputs = outputs
    assert convolutions + norms + 512 * classes + classes == published
    assert count(network) == published


@pytest.mark.parametrize(("size", "classes", "published"), [(32, 10, 23_520_842), (224, 1000, 25_557_032)])
def test_resnet50_has_the_published_parameters(size: int, classes: int, published: int) -> None:
    with torch.device("meta"):
        network = ResNet50(channels=3, classes=classes, size=size)
    parameters = 64 * 3 * (9 if size < 96 else 49) + 2 * 64
    inputs = 64
    for inner, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(blocks):
            parameters += (
                inputs * inner + 9 * inner * inner + 4 * inner * inner + 2 * (inner + inner + 4 * inner)
            )
            if inputs != 4 * inner:
                parameters += 4 * inputs * inner + 2 * 4 * inner
                inputs = 4 * inner
    assert parameters + inputs * classes + classes == published
    assert count(network) == published


@pytest.mark.parametrize(("name", "published"), [("convnet", 320_010), ("resnet18", 11_173_962)])
def test_without_a_width_a_network_is_the_published_one(name: str, published: int) -> None:
    config = TeacherConfig(network=name)  # type: ignore[arg-type]
    network = build_classifier(
        config.network,
        channels=3,
        classes=10,
        size=32,
        width=config.width,
        depth=config.depth,
        mean=(0.4,) * 3,
        std=(0.2,) * 3,
        seed=0,
    )
    assert count(network) == published


@pytest.mark.parametrize(
    ("channels", "size", "depth", "side"),
    [(1, 28, 3, 4), (3, 28, 3, 3), (3, 32, 3, 4), (1, 8, 3, 1), (3, 12, 2, 3), (3, 8, 5, 1), (1, 9, 1, 4)],
)
def test_convnet_halves_the_map_in_every_block(channels: int, size: int, depth: int, side: int) -> None:
    network = ConvNet(channels=channels, classes=7, size=size, width=4, depth=depth)
    images = torch.rand(2, channels, size, size)
    assert network.features(images).shape == (2, 4, side, side)
    assert network(images).shape == (2, 7)
    assert network.classifier.in_features == 4 * side * side


@pytest.mark.parametrize(("size", "side"), [(8, 1), (12, 2), (32, 4), (96, 3), (128, 4)])
def test_resnet18_takes_the_stem_of_the_image_size(size: int, side: int) -> None:
    network = ResNet18(channels=1, classes=7, size=size, width=4).eval()
    images = torch.rand(2, 1, size, size)
    assert network.stages(network.stem(images)).shape == (2, 32, side, side)
    assert network(images).shape == (2, 7)
    kernel = network.stem[0].weight.shape[-1]  # type: ignore[union-attr]
    assert kernel == (3 if size < 96 else 7)


def test_convnet_normalises_every_image_and_channel_by_itself() -> None:
    network = ConvNet(channels=3, classes=7, size=8, width=4, depth=1)
    images = torch.rand(6, 3, 8, 8)
    assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-6)
    block = network.features
    instance = nn.InstanceNorm2d(4, affine=True)
    hidden = block[0](images)
    assert torch.allclose(block[1](hidden), instance(hidden), atol=1e-5)


def test_a_residual_block_adds_its_shortcut() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 6, 6)
    same = ResidualBlock(4, 4, 1).eval()
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(features), functional.relu(features))
    wider = ResidualBlock(4, 8, 2).eval()
    nn.init.zeros_(wider.conv2.weight)
    assert torch.equal(wider(features), functional.relu(wider.shortcut(features)))
    assert wider(features).shape == (2, 8, 3, 3)


def test_a_bottleneck_adds_its_shortcut() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 6, 6)
    same = Bottleneck(8, 2, 1).eval()
    nn.init.zeros_(same.conv3.weight)
    assert torch.equal(same(features), functional.relu(features))
    wider = Bottleneck(8, 4, 2).eval()
    nn.init.zeros_(wider.conv3.weight)
    assert torch.equal(wider(features), functional.relu(wider.shortcut(features)))
    assert wider(features).shape == (2, 16, 3, 3)
    assert (wider.conv1.stride, wider.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize(("size", "side"), [(8, 1), (32, 4), (96, 3)])
def test_resnet50_takes_the_stem_of_the_image_size(size: int, side: int) -> None:
    network = ResNet50(channels=1, classes=7, size=size, width=4).eval()
    images = torch.rand(2, 1, size, size)
    assert network.stages(network.stem(images)).shape == (2, 128, side, side)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = state(build(name, seed=3))
    before = torch.get_rng_state()
    assert state(build(name, seed=3)) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert state(build(name, seed=4)) != first


@pytest.mark.parametrize("name", NETWORKS.names())
def test_every_registered_network_takes_the_same_arguments(name: str) -> None:
    classifier = build(name, channels=1, size=12)
    assert classifier(torch.rand(3, 1, 12, 12)).shape == (3, 5)


def test_a_classifier_carries_its_normalisation() -> None:
    classifier = Classifier(nn.Identity(), (0.5, 0.25), (0.5, 0.125))
    images = torch.rand(2, 2, 3, 3)
    expected: Tensor = torch.stack([(images[:, 0] - 0.5) / 0.5, (images[:, 1] - 0.25) / 0.125], 1)
    assert torch.equal(classifier(images), expected)
    assert set(classifier.state_dict()) == {"mean", "std"}


def test_a_constant_channel_gives_numbers() -> None:
    classifier = Classifier(nn.Identity(), (0.5,), (0.0,))
    assert bool(torch.isfinite(classifier(torch.full((1, 1, 2, 2), 0.5))).all())


def test_logits_are_float32_in_a_half_precision_pass() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = build()(torch.rand(2, 3, 8, 8))
    assert logits.dtype == torch.float32


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="convnet"):
        build("convnett")
