"""Computed labels kept in memory, for runs that show the same views again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aerogel.condense.labels import Batch, LabelSource
from aerogel.errors import ConfigError, compose


@dataclass
class _Epoch:
    """Hold the labels of some samples of one epoch: a row for each, and where each sample's is (-1: none)."""

    places: np.ndarray
    rows: Tensor
    used: int = 0


class CachedLabels:
    """Keep what a source computed, up to a budget of bytes, by (epoch, sample).

    A batch whose labels are all there is answered from memory; any other is computed whole, as it came, so
    that what is returned is always what the source itself gave for these views. Nothing is ever dropped: runs
    come back to views in the order in which they first saw them, and a cache that drops the oldest would then
    hold none of those that come next. It pays for views that come again: several students of the same views,
    or a run that goes round those of some epochs.

    ``images`` is the number of samples of an epoch. Rows are float32 in main memory, and beside them an epoch
    has four bytes for each sample; ``size_bytes`` counts both and never exceeds ``budget_bytes``.
    """

    def __init__(self, source: LabelSource, *, images: int, budget_bytes: int) -> None:
        if images < 1 or budget_bytes < 0:
            raise ConfigError(
                compose(
                    "at least one image and a budget of 0 bytes or more",
                    f"{images} and {budget_bytes}",
                    "pass the number of condensed images and the bytes that labels may take",
                )
            )
        self.source = source
        self.images = images
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._epochs: dict[int, _Epoch] = {}

    @property
    def name(self) -> str:
        """Return what tables call the source that is kept."""
        return self.source.name

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the labels of the batch, from memory where all of them are there."""
        known = self._epochs.get(batch.epoch)
        if known is not None:
            places = known.places[batch.parameters.samples]
            if len(places) and int(places.min()) >= 0:
                return known.rows[torch.from_numpy(places)].to(batch.views.device)
        found = self.source.logits(batch)
        if found is not None:
            self._keep(batch, found)
        return found

    def _keep(self, batch: Batch, logits: Tensor) -> None:
        epoch = self._epochs.get(batch.epoch) or self._open(batch.epoch, int(logits.shape[1]))
        if epoch is None or epoch.used == len(epoch.rows):
            return
        samples, first = np.unique(batch.parameters.samples, return_index=True)
        new = epoch.places[samples] < 0
        samples, first = samples[new], first[new]
        room = len(epoch.rows) - epoch.used
        samples, first = samples[:room], first[:room]
        places = np.arange(epoch.used, epoch.used + len(samples))
        epoch.rows[torch.from_numpy(places)] = logits.detach()[torch.from_numpy(first)].float().cpu()
        epoch.places[samples] = places
        epoch.used += len(samples)

    def _open(self, epoch: int, classes: int) -> _Epoch | None:
        """Make room for the labels of an epoch, for all its samples or as many as the budget still allows."""
        places = np.full(self.images, -1, dtype=np.int32)
        left = self.budget_bytes - self.size_bytes - places.nbytes
        count = min(self.images, left // (4 * classes))
        if count < 1:
            return None
        opened = _Epoch(places, torch.empty(count, classes))
        self.size_bytes += places.nbytes + opened.rows.nbytes
        self._epochs[epoch] = opened
        return opened
