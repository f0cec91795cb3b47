from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense.description import read_description, rebuild, require_preparation
from aerogel.condense.networks import build_classifier
from aerogel.condense.teacher import save_weights
from aerogel.errors import IntegrityError

SHAPE: dict[str, Any] = {"channels": 1, "size": 8, "width": 4, "depth": 1, "mean": [0.5], "std": [0.2]}
FOUND: dict[str, Any] = {**SHAPE, "network": "convnet", "class_names": ["a", "b"]}


def stored(folder: Path, network: str = "convnet", width: int = 4) -> Any:
    shape = {**SHAPE, "width": width, "mean": (0.5,), "std": (0.2,)}
    classifier = build_classifier(network, classes=2, seed=3, **shape)
    save_weights(classifier, folder / "weights.safetensors")
    return classifier


WIDTHS = {"convnet": 4, "resnet18": 4, "resnet50": 4, "mobilenet-v2": 4, "vit-t": 6, "swin-t": 6}


@pytest.mark.parametrize("network", WIDTHS)
def test_a_network_comes_back_with_its_weights(tmp_path: Path, network: str) -> None:
    width = WIDTHS[network]
    built = stored(tmp_path, network, width=width).eval()
    found = rebuild({**FOUND, "network": network, "width": width}, tmp_path / "weights.safetensors")
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(found(images), built(images))
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("network", [name for name in WIDTHS if name != "convnet"])
def test_a_claimed_size_takes_no_memory(tmp_path: Path, network: str) -> None:
    stored(tmp_path, network, width=WIDTHS[network])
    for width in (10**9, 12 * 10**6, 10**30, 2 * WIDTHS[network], 0, -6, 6.0, True, "6"):
        with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
            rebuild({**FOUND, "network": network, "width": width}, tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "change", [{"width": 10**9}, {"depth": 10**9}, {"width": "x"}, {"network": "none"}, {"mean": None}]
)
def test_a_description_of_another_network_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    stored(tmp_path)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        rebuild({**FOUND, **change}, tmp_path / "weights.safetensors")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    built = stored(tmp_path)
    with torch.no_grad():
        built.network.classifier.bias[0] = float("nan")
    save_weights(built, tmp_path / "weights.safetensors")
    with pytest.raises(IntegrityError, match="finite"):
        rebuild(FOUND, tmp_path / "weights.safetensors")


def test_a_description_is_read_with_its_classes_checked(tmp_path: Path) -> None:
    path = tmp_path / "teacher.json"
    path.write_text(json.dumps(FOUND))
    assert read_description(path) == FOUND
    changes = [
        {"class_names": ["a", "a"]},
        {"class_names": "ab"},
        {"channels": 2},
        {"size": 0},
        {"network": 1},
    ]
    for change in changes:
        path.write_text(json.dumps({**FOUND, **change}))
        with pytest.raises(IntegrityError, match=next(iter(change))):
            read_description(path)


def test_a_preparation_has_bounds(tmp_path: Path) -> None:
    sound = {"resize": [8, 8], "crop": None, "filter": "bilinear", "factor": 1.0, "mean": [0.5], "std": [1.0]}
    require_preparation(tmp_path, {"preparation": sound})
    for change in ({"resize": [10**9, 8]}, {"filter": "os"}, {"std": [0.0]}, {"mean": "x"}, {"factor": True}):
        with pytest.raises(IntegrityError, match=next(iter(change))):
            require_preparation(tmp_path, {"preparation": {**sound, **change}})
    with pytest.raises(IntegrityError, match="preparation"):
        require_preparation(tmp_path, {})
