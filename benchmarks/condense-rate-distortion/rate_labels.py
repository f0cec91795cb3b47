"""The labels of a row, and the views that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aerogel.condense.labels import Batch, LabelSource, make_batch
from aerogel.condense.student import TrainingSet


def address_views(data: TrainingSet, epochs: int, first: int = 0) -> Iterator[Batch]:
    """Yield for each epoch which views it shows, without drawing them: enough to look labels up."""
    samples = np.arange(len(data))
    size = int(data.images.shape[-1])
    for epoch in range(first, epochs):
        found = data.views.parameters(epoch, samples, size=size)
        partners = data.labels[torch.from_numpy(found.partners)]
        yield Batch(torch.empty(0), found, epoch, data.labels, partners, found.mixing_weight(size))


def render_views(data: TrainingSet, epochs: int, device: str, first: int = 0) -> Iterator[Batch]:
    """Yield the views of every epoch, all images of it in one batch."""
    for epoch in range(first, epochs):
        yield make_batch(data.images, data.labels, data.views, epoch, np.arange(len(data)), device)


@dataclass(frozen=True)
class Labels:
    """Hold the labels of one row, their bytes, how true they are, and the digest of their stage.

    ``epochs`` is how many epochs of views they have, None where each of the run has its own.
    """

    source: LabelSource
    bytes: int
    fidelity: Mapping[str, Any] | None
    digest: str
    epochs: int | None = None
