"""A few pictures, their views in batches, and a network to label them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from aerogel.condense.config import ViewConfig
from aerogel.condense.labels import Batch, make_batch
from aerogel.condense.networks import build_classifier
from aerogel.condense.views import Views

IMAGES, SIZE, CLASSES, EPOCHS = 11, 8, 3, 5
RANDOM = np.random.default_rng(0)
PIXELS = torch.from_numpy(RANDOM.integers(0, 256, (IMAGES, 1, SIZE, SIZE)).astype(np.uint8))
LABELS = torch.from_numpy(RANDOM.integers(0, CLASSES, IMAGES))
VIEWS = Views(ViewConfig(cutmix=0.7), 3, IMAGES)


def teacher(name: str = "convnet") -> nn.Module:
    return build_classifier(
        name, channels=1, classes=CLASSES, size=SIZE, width=4, depth=2, mean=(0.5,), std=(0.2,), seed=5
    )


def batch_of(samples: list[int], epoch: int = 0, views: Views = VIEWS) -> Batch:
    return make_batch(PIXELS, LABELS, views, epoch, np.array(samples), "cpu")


def run_of_batches(epochs: int = EPOCHS, first: int = 0) -> Iterator[Batch]:
    """Give every sample of every epoch, shuffled, in batches of 4, 4 and 3."""
    for epoch in range(first, epochs):
        order = np.random.default_rng(epoch).permutation(IMAGES).tolist()
        for start in range(0, IMAGES, 4):
            yield batch_of(order[start : start + 4], epoch)
