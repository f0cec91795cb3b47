"""A condensed set as transformers' Trainer takes it: keys of views, and batches made from the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from aerogel.condense.families.preparation import Preparation, prepare, read_preparation
from aerogel.condense.labels import Batch, make_batch
from aerogel.errors import ConfigError, MismatchError, compose

if TYPE_CHECKING:
    from aerogel.condense.condensed import CondensedSet

PIXELS = "pixel_values"
HARD = "labels"
PARTNERS = "partner_labels"
WEIGHTS = "mixing_weights"
SOFT = "soft_labels"


class ViewKey(NamedTuple):
    """Address a view: ``sample`` at ``epoch``."""

    epoch: int
    sample: int


class ViewKeys(Dataset[ViewKey]):
    """Serve the key of every sample's view at the current epoch; pixels and labels come with the batch.

    Trainer leaves items alone that are no dicts, so that no column is dropped on the way.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        # In shared memory: worker processes that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Choose whose views are addressed: epoch 0, 1, 2, ..."""
        self._epoch.fill_(epoch)

    def __getitem__(self, sample: int) -> ViewKey:
        """Return the key of ``sample`` at the current epoch."""
        if not 0 <= sample < self.count:
            raise IndexError(sample)
        return ViewKey(int(self._epoch), int(sample))


class DistillationCollator:
    """Make a batch from view keys: render the views, label them, and prepare the pixels for a model.

    A batch holds ``pixel_values`` [B, C, H, W], ``labels`` [B] (the image's class), and what the loss needs:
    ``partner_labels`` [B] and ``mixing_weights`` [B] of CutMix, and ``soft_labels`` [B, classes], the label
    generator's logits. Keys of several epochs may be mixed. Items that are no keys, such as those of a test
    set, are stacked as Trainer does by default.
    """

    def __init__(
        self, data: CondensedSet, processor: Any = None, *, channels: int | None = None, soft: bool = True
    ) -> None:
        """Prepare pixels as ``processor`` says, an image processor of transformers.

        Without one they keep their size and are normalised by the set's own statistics. ``channels`` is what
        the model takes; grey serves as RGB. ``soft`` off leaves the soft labels out.

        Raises:
            DataError: the processor does what is not reproduced here.
            MismatchError: a model of other channels, RGB to grey.
        """
        own = int(data.images.shape[1])
        self.data = data
        self.soft = soft
        if processor is None:
            self.channels = channels or own
            spread = self.channels if own == 1 else 1
            mean, std = data.mean * spread, data.std * spread
            self.preparation = Preparation(None, None, "bilinear", 1.0, mean, std)
        else:
            self.preparation = read_preparation(processor.to_dict(), channels or 3)
            self.channels = channels or len(self.preparation.mean)
        if own not in (1, self.channels):
            raise MismatchError(
                compose(
                    f"a model for images of {own} channels",
                    f"one for {self.channels}",
                    "choose another model",
                )
            )

    def __call__(self, items: Sequence[Any]) -> dict[str, Tensor]:
        """Return the batch of ``items``.

        Raises:
            ConfigError: soft labels are wanted in a worker process.
        """
        if not isinstance(items[0], ViewKey):
            from transformers import default_data_collator

            stacked: dict[str, Tensor] = default_data_collator(list(items))
            return stacked
        if self.soft and get_worker_info() is not None:
            raise ConfigError(
                compose(
                    "batches made in the training process, where the label generator is",
                    "a worker process",
                    "set dataloader_num_workers=0",
                )
            )
        batches = [self._batch(epoch, items) for epoch in sorted({item.epoch for item in items})]
        views = torch.cat([batch.views for batch in batches])
        found = {
            PIXELS: self.prepare(views),
            HARD: torch.cat([batch.labels for batch in batches]),
            PARTNERS: torch.cat([batch.partner_labels for batch in batches]),
            WEIGHTS: torch.cat([batch.weights for batch in batches]),
        }
        return {**found, SOFT: self._soften(batches)} if self.soft else found

    def prepare(self, views: Tensor) -> Tensor:
        """Return ``views`` [B, C, S, S] in [0, 1] as the model takes them."""
        mean, std = (
            torch.tensor(each).view(-1, 1, 1) for each in (self.preparation.mean, self.preparation.std)
        )
        return prepare(views.expand(-1, self.channels, -1, -1), self.preparation, mean, std)

    def _soften(self, batches: Sequence[Batch]) -> Tensor:
        found = [self.data.labels(each.views, each.parameters.samples, epoch=each.epoch) for each in batches]
        return torch.cat(found).cpu()

    def _batch(self, epoch: int, items: Sequence[ViewKey]) -> Batch:
        samples = np.array([item.sample for item in items if item.epoch == epoch], dtype=np.int64)
        data = self.data
        shown = data.shown_epoch(epoch)
        return make_batch(data.images, data.class_labels, data.views, shown, samples, "cpu")
