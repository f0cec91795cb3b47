"""Image classifiers from transformers, made to take the images that everything else here takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.condense.families.preparation import Preparation, prepare, understand_processor
from aerogel.errors import DataError, MismatchError, compose
from aerogel.zoo.pretrained import load_part, load_pretrained, quiet


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
        pixels = prepare(images.expand(-1, self.channels, -1, -1), self.preparation, self.mean, self.std)
        logits: Tensor = self.model(pixel_values=pixels).logits
        return logits.float()


def load_classifier(name: str) -> ImageClassifier:
    """Load an image classifier and its image processor from a folder or the Hugging Face hub.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded, or its image processor does what cannot be reproduced.
    """
    model = load_pretrained("AutoModelForImageClassification", name)
    processor = load_part("AutoImageProcessor", name)
    channels = int(getattr(model.config, "num_channels", 3))
    preparation = understand_processor(name, processor.to_dict(), channels)
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
