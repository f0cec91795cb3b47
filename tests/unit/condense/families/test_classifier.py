"""A transformers classifier sees images as its own image processor would prepare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense.families.classifier import (
    ImageClassifier,
    load_classifier,
    reopen_classifier,
    require_channels,
    save_classifier,
)
from aerogel.condense.families.preparation import Preparation
from aerogel.errors import DataError, MismatchError
from tests.unit.condense import tiny


def pictures(size: int, channels: int = 3) -> torch.Tensor:
    """Return smooth images, where resampling with and without rounding to 8 bits differ by little."""
    line = torch.linspace(0, 3, size)
    waves = [torch.sin(line[:, None] * a + line[None, :] * b) for a, b in ((1, 2), (2, -1), (0.5, 1))]
    image = ((torch.stack(waves) + 1.0) * 127.0).round().to(torch.uint8)
    return torch.stack([image, image.flip(2)])[:, :channels]


def theirs(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Return the logits by transformers' own processor and model."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(
            **processor([image.numpy() for image in images], return_tensors="pt")
        ).logits
    return logits


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_logits_are_those_of_processor_and_model(tmp_path: Path, kind: str) -> None:
    settings: dict[str, Any] = {} if kind == "vit" else {"size": {"shortest_edge": 400}}
    size = 16 if kind == "vit" else 400
    folder = tiny.write_classifier(tmp_path, kind=kind, **settings)
    images = pictures(size)
    ours = load_classifier(str(folder))(images.float() / 255.0)
    assert torch.allclose(ours, theirs(folder, images), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "size"),
    [
        ("vit", {}, 32),
        ("vit", {}, 11),
        ("vit", {"resample": 3}, 32),
        ("vit", {"resample": 0}, 27),
        ("vit", {"image_processor_type": "EfficientNetImageProcessor", "resample": 2}, 24),
        ("vit", {"do_normalize": False}, 24),
        ("vit", {"rescale_factor": 1 / 127.5}, 24),
        ("resnet", {}, 40),
        ("resnet", {"crop_pct": 0.5, "resample": 3}, 40),
        (
            "resnet",
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 20},
                "crop_size": {"height": 16, "width": 12},
            },
            40,
        ),
        (
            "resnet",
            {
                "image_processor_type": "BitImageProcessor",
                "do_resize": False,
                "crop_size": {"height": 24, "width": 24},
            },
            19,
        ),
    ],
)
def test_resizing_and_cropping_follow_the_processor(
    tmp_path: Path, kind: str, settings: dict[str, Any], size: int
) -> None:
    folder = tiny.write_classifier(tmp_path, kind=kind, **settings)
    classifier, images = load_classifier(str(folder)), pictures(size)
    ours, expected = classifier(images.float() / 255.0), theirs(folder, images)
    assert torch.allclose(ours, expected, atol=0.05 * float(expected.abs().max()))


def test_grey_images_serve_as_colour(tmp_path: Path) -> None:
    classifier = load_classifier(str(tiny.write_classifier(tmp_path)))
    grey = pictures(16, 1).float() / 255.0
    assert torch.equal(classifier(grey), classifier(grey.repeat(1, 3, 1, 1)))
    require_channels(classifier, 1)
    require_channels(classifier, 3)
    classifier.channels = 1
    with pytest.raises(MismatchError, match="set channels=1"):
        require_channels(classifier, 3)


def test_class_names_come_in_the_order_of_the_logits(tmp_path: Path) -> None:
    names = tuple(f"class {index}" for index in range(12))
    assert load_classifier(str(tiny.write_classifier(tmp_path, names=names))).class_names == names


def test_what_was_saved_is_reopened_to_the_last_bit(tmp_path: Path) -> None:
    first = load_classifier(str(tiny.write_classifier(tmp_path / "a", resample=3)))
    save_classifier(first, tmp_path / "b")
    again = reopen_classifier(tmp_path / "b", Preparation.from_dict(first.preparation.to_dict()))
    assert again.preparation == first.preparation
    images = pictures(20).float() / 255.0
    assert torch.equal(again(images), first(images))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert isinstance(again, ImageClassifier)


def test_a_folder_without_an_image_processor_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_classifier(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match="could not be loaded"):
        load_classifier(str(folder))
