"""The residual networks of CIFAR are recognised by their tensors, and nothing else is taken for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from aerogel.condense.families.cifar_resnet import (
    CifarBlock,
    CifarResNet,
    Shape,
    load_cifar_resnet,
    recognise,
)
from aerogel.errors import DataError
from aerogel.zoo import load_images
from tests.unit.condense import tiny

DATA = Path(os.environ.get("AEROGEL_DATA", ""))
FILE = DATA / "models" / "cifar10-resnet56.safetensors"


def shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("blocks", [(3, 3, 3), (1, 2, 1)])
def test_a_network_is_recognised_by_its_tensors(blocks: tuple[int, ...], projected: bool) -> None:
    shape = Shape(blocks, 8, 5, projected)
    weights = CifarResNet(shape).state_dict()
    assert recognise(shapes(weights)) == shape


def test_depth_and_size_are_the_papers() -> None:
    found = {}
    for blocks in (3, 9, 18):
        with torch.device("meta"):
            network = CifarResNet(Shape((blocks,) * 3, 16, 10, False))
        found[network.shape.depth] = sum(value.numel() for value in network.parameters())
    assert found == {20: 269_722, 56: 853_018, 110: 1_727_962}


@pytest.mark.parametrize("projected", [False, True])
def test_weights_are_read_back(tmp_path: Path, projected: bool) -> None:
    file = tiny.write_cifar_resnet(tmp_path / "net.safetensors", projected=projected)
    stored = load_file(file)
    network = load_cifar_resnet(file)
    assert all(torch.equal(value, stored[name]) for name, value in network.named_parameters())
    assert not network.training
    assert not any(value.requires_grad for value in network.parameters())
    assert not any(value.is_meta for value in network.state_dict().values())
    images = torch.rand(2, 3, 32, 32)
    whole = CifarResNet(network.shape).eval()
    whole.load_state_dict(stored)
    assert torch.equal(network(images), whole(images))


def test_half_precision_and_missing_counters_do(tmp_path: Path) -> None:
    file = tiny.write_cifar_resnet(tmp_path / "net.safetensors")
    weights = {name: value for name, value in load_file(file).items() if "num_batches" not in name}
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "half.safetensors")
    network = load_cifar_resnet(tmp_path / "half.safetensors")
    assert network.conv1.weight.dtype == torch.float32
    assert network.bn1.num_batches_tracked == 0
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(network(images), load_cifar_resnet(file)(images), atol=0.05)


@pytest.mark.parametrize("size", [32, 17])
def test_a_shortcut_without_weights_keeps_every_second_pixel(size: int) -> None:
    block = CifarBlock(4, 8, 2, projected=False).eval()
    maps = torch.rand(2, 4, size, size)
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.zero_()
        found = block(maps)
    assert torch.equal(found[:, 2:6], maps[:, :, ::2, ::2])
    assert not found[:, :2].any()
    assert not found[:, 6:].any()


def test_images_are_normalised_inside() -> None:
    network = CifarResNet(Shape((1, 1, 1), 4, 3, False)).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        prepared = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        maps = functional.relu(network.bn1(network.conv1(prepared)))
        maps = network.layer3(network.layer2(network.layer1(maps)))
        assert torch.allclose(network(images), network.linear(maps.mean((2, 3))), atol=1e-6)


def change(name: str, value: Any) -> Any:
    def alter(weights: dict[str, Tensor]) -> None:
        weights[name] = value

    return alter


def drop(*names: str) -> Any:
    def alter(weights: dict[str, Tensor]) -> None:
        for name in names or list(weights):
            del weights[name]

    return alter


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (drop("layer2.0.conv1.weight"), "layer2.0.conv1.weight"),
        (drop("bn1.running_var"), "bn1.running_var"),
        (drop("conv1.weight"), "of others"),
        (drop("linear.weight"), "of others"),
        (change("linear.bias", torch.zeros(4)), "linear.bias"),
        (change("linear.weight", torch.zeros(3, 5)), "linear.weight"),
        (change("linear.weight", torch.zeros(3)), "of others"),
        (change("conv1.weight", torch.zeros(0, 3, 3, 3)), "of others"),
        (change("conv1.weight", torch.zeros(4, 1, 3, 3)), "conv1.weight"),
        (change("extra", torch.zeros(1)), "extra"),
        (change("layer3.7.conv1.weight", torch.zeros(1)), "of others"),
        (change("layer2.0.shortcut.0.weight", torch.zeros(8, 4, 1, 1)), "layer2.0.shortcut.1.bias"),
        (change("bn1.weight", torch.full((4,), torch.nan)), "finite numbers"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, alter: Any, told: str) -> None:
    weights = load_file(tiny.write_cifar_resnet(tmp_path / "net.safetensors"))
    alter(weights)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=told):
        load_cifar_resnet(tmp_path / "other.safetensors")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tiny.write_cifar_resnet(tmp_path / "net.safetensors")
    content = file.read_bytes()
    for index, damaged in enumerate((content[:-5], b"", b"\xff" * 64, content[:40])):
        path = tmp_path / f"{index}.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            load_cifar_resnet(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_cifar_resnet(tmp_path / "none.safetensors")


@pytest.mark.skipif(not FILE.is_file(), reason="the published weights are not there")
def test_published_weights_classify() -> None:
    network = load_cifar_resnet(FILE)
    assert network.shape == Shape((9, 9, 9), 16, 10, False)
    data = load_images(DATA / "cifar10", split="test")
    with torch.no_grad():
        logits = network(data.images[::40].float() / 255.0)
    assert (logits.argmax(1) == data.labels[::40]).float().mean() > 0.75
