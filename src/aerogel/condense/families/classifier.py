"""Image classifiers from transformers, made to take the images that everything else here takes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import DataError, MismatchError, compose
from aerogel.zoo.pretrained import load_part, load_pretrained, quiet

_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_NOT_REPRODUCED = ("do_pad", "do_reduce_labels", "do_flip_channel_order", "rescale_offset", "include_top")
_NO_RESIZE_CROP_FROM = 384


@dataclass(frozen=True)
class Preparation:
    """Say what a classifier's image processor does to an image: resize, cut out the centre, scale, normalise.

    ``resize`` and ``crop`` are (height, width) in pixels or None where the step is left out; ``filter`` is
    "nearest", "bilinear" or "bicubic"; ``factor`` multiplies pixels in [0, 1] before ``mean`` and ``std``,
    one value per channel, are applied.
    """

    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    filter: str
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Preparation:
        """Read what :meth:`to_dict` returned."""
        return Preparation(
            resize=tuple(data["resize"]) if data["resize"] else None,
            crop=tuple(data["crop"]) if data["crop"] else None,
            filter=str(data["filter"]),
            factor=float(data["factor"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )


class ImageClassifier(nn.Module):
    """Prepare square images in [0, 1] of any size as ``preparation`` says, and classify them."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, preparation: Preparation) -> None:
        super().__init__()
        self.model = model
        self.preparation = preparation
        self.channels = int(getattr(model.config, "num_channels", 3))
        self.register_buffer("mean", torch.tensor(preparation.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preparation.std).view(-1, 1, 1), persistent=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the model's class names in the order of its logits."""
        names = self.model.config.id2label
        if set(names) != set(range(len(names))):
            raise DataError(
                compose("class names (id2label) for the numbers from 0", "gaps", "name every class")
            )
        return tuple(str(names[index]) for index in range(len(names)))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] in float32 for ``images`` [B, C, S, S] in [0, 1]; grey serves as RGB."""
        pixels = images.expand(-1, self.channels, -1, -1)
        wanted = self.preparation
        if wanted.resize is not None and tuple(pixels.shape[-2:]) != wanted.resize:
            smooth = wanted.filter != "nearest"
            pixels = functional.interpolate(
                pixels,
                size=wanted.resize,
                mode=wanted.filter,
                align_corners=False if smooth else None,
                antialias=smooth,
            ).clamp(0.0, 1.0)
        if wanted.crop is not None:
            pixels = _cut_centre(pixels, wanted.crop)
        logits: Tensor = self.model(pixel_values=(pixels * wanted.factor - self.mean) / self.std).logits
        return logits.float()


def _cut_centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle [B, C, *size] of ``images`` [B, C, H, W], with zeros where they are smaller."""
    height, width = size
    low_y, low_x = max(0, height - images.shape[-2]), max(0, width - images.shape[-1])
    if low_y or low_x:
        top, left = math.ceil(low_y / 2), math.ceil(low_x / 2)
        images = functional.pad(images, (left, low_x - left, top, low_y - top))
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def read_preparation(processor: dict[str, Any], channels: int) -> Preparation:
    """Read the config of a transformers image processor, its defaults filled in, for square images.

    Raises:
        DataError: it asks for a step that is not reproduced here.
    """
    odd = [name for name in _NOT_REPRODUCED if processor.get(name)]
    resample = int(processor.get("resample") or 0)
    if processor.get("do_resize") and resample not in _FILTERS:
        odd.append(f"resample={resample}")
    if odd:
        raise DataError(
            compose(
                "an image processor that resizes, crops, rescales and normalises",
                f"one with {', '.join(odd)}",
                "choose another classifier, or train a teacher here",
            )
        )
    resize, crop = None, None
    if processor.get("do_resize"):
        resize = _square(processor.get("size") or {}, "size")
        share = processor.get("crop_pct")
        if share is not None and resize[0] < _NO_RESIZE_CROP_FROM:
            # Up to this size the ConvNeXt family enlarges first and then cuts the centre out.
            crop, resize = resize, (int(resize[0] / share), int(resize[1] / share))
    if processor.get("do_center_crop"):
        crop = _square(processor.get("crop_size") or {}, "crop_size")
    factor = 255.0 * float(processor["rescale_factor"]) if processor.get("do_rescale") else 255.0
    normalised = bool(processor.get("do_normalize"))
    mean = tuple(float(value) for value in processor["image_mean"]) if normalised else (0.0,) * channels
    std = tuple(float(value) for value in processor["image_std"]) if normalised else (1.0,) * channels
    return Preparation(resize, crop, _FILTERS.get(resample, "bilinear"), factor, mean, std)


def _square(size: dict[str, Any], name: str) -> tuple[int, int]:
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if size.get("shortest_edge"):
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise DataError(
        compose(
            f"an image processor whose {name} has a height and a width, or a shortest edge",
            f"{size}",
            "name these",
        )
    )


def load_classifier(name: str) -> ImageClassifier:
    """Load an image classifier and its image processor from a folder or the Hugging Face hub.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded, or its image processor does what cannot be reproduced.
    """
    model = load_pretrained("AutoModelForImageClassification", name)
    processor = load_part("AutoImageProcessor", name)
    channels = int(getattr(model.config, "num_channels", 3))
    try:
        preparation = read_preparation(processor.to_dict(), channels)
    except DataError as failure:
        raise DataError(f"the image processor of {name!r}: {failure}") from failure
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as failure:
        raise DataError(
            compose(f"an image processor's config in {name!r}", repr(failure), "save or fetch it again")
        ) from failure
    return ImageClassifier(model, preparation).requires_grad_(False)


def save_classifier(classifier: ImageClassifier, folder: Path) -> None:
    """Write the model as transformers reads it; the preparation is for the caller to keep."""
    with quiet():
        classifier.model.save_pretrained(folder)


def reopen_classifier(folder: Path, preparation: Preparation) -> ImageClassifier:
    """Load what :func:`save_classifier` wrote.

    Raises:
        DataError: the folder is damaged.
    """
    model = load_pretrained("AutoModelForImageClassification", str(folder))
    return ImageClassifier(model, preparation).requires_grad_(False)


def require_channels(classifier: ImageClassifier, channels: int) -> None:
    """Check that a classifier can be given images of so many channels.

    Raises:
        MismatchError: it cannot.
    """
    if channels not in (1, classifier.channels):
        raise MismatchError(
            compose(
                f"images of {classifier.channels} channels, as the classifier was trained on",
                f"{channels} channels",
                f"set channels={classifier.channels}",
            )
        )
