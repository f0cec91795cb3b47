"""Where a student's labels come from: one protocol for generators, teachers and stored labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import (
    open_store,
)
from aerogel.condense.views import ViewParameters, Views, send
from aerogel.core.documents import read_tensors
from aerogel.errors import IntegrityError, compose

if TYPE_CHECKING:
    pass

_BATCH = 250


@dataclass(frozen=True)
class Batch:
    """Hold a batch of views [B, C, S, S] in [0, 1], their geometry, and what they show.

    ``labels`` and ``partner_labels`` [B] are the hard labels of each sample and of its CutMix partner,
    ``weights`` [B] the sample's share of the pixels.
    """

    views: Tensor
    parameters: ViewParameters
    epoch: int
    labels: Tensor
    partner_labels: Tensor
    weights: Tensor

    def hard_loss(self, logits: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``logits`` [B, classes] to the mixed labels (arXiv 1905.04899)."""
        return mixed_cross_entropy(logits, self.labels, self.partner_labels, self.weights)


def mixed_cross_entropy(logits: Tensor, labels: Tensor, partner_labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``logits`` [B, classes] to two classes, the first by ``weights``."""
    own = functional.cross_entropy(logits, labels, reduction="none")
    partner = functional.cross_entropy(logits, partner_labels, reduction="none")
    return (weights * own + (1.0 - weights) * partner).mean()


def make_batch(
    images: Tensor, labels: Tensor, views: Views, epoch: int, samples: np.ndarray, device: str
) -> Batch:
    """Render the views of ``samples`` [B] at ``epoch`` of ``images`` [N, C, S, S] (uint8) on ``device``."""
    rendered, found = views.render(images, epoch, samples, device)
    return Batch(
        views=rendered,
        parameters=found,
        epoch=epoch,
        labels=send(labels[torch.from_numpy(found.samples)], device),
        partner_labels=send(labels[torch.from_numpy(found.partners)], device),
        weights=send(found.mixing_weight(int(images.shape[-1])), device),
    )


class LabelSource(Protocol):
    """Give the training signal of a batch of views.

    ``logits`` returns [B, classes] in float32 on the batch's device, or None
    where the hard labels are all there is.
    """

    @property
    def name(self) -> str:
        """Return what tables call the source."""
        ...

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the soft labels of the batch as logits [B, classes], or None."""
        ...


@dataclass(frozen=True)
class NetworkLabels:
    """Compute the labels of every view as it is shown, by a teacher or by a label generator.

    Always in float32 and evaluation mode, so that stored labels can equal these bit for bit.
    """

    name: str
    network: Callable[[Tensor], Tensor]

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the network's logits for the views."""
        if isinstance(self.network, nn.Module) and self.network.training:
            self.network.eval()
        with torch.no_grad(), torch.autocast(batch.views.device.type, enabled=False):
            found = self.network(batch.views.float())
        return found.float()


@dataclass(frozen=True)
class HardLabels:
    """Give no soft labels: the student sees class indices, mixed as the views are."""

    name: str = "hard"

    def logits(self, batch: Batch) -> Tensor | None:
        """Return None."""
        del batch
        return None


class OnePerImage:
    """Give one stored soft label per image, whatever the view; CutMix views mix two of them by area."""

    name = "one-per-image"

    def __init__(self, path: Path, shape: tuple[int, int] | None = None) -> None:
        tensors, _ = read_tensors(path)
        found = tensors.get("labels")
        if found is None or not _holds_logits(found, shape) or not bool(found.isfinite().all()):
            raise _refuse(path, found, shape)
        self._labels = found.float()

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the log of the mixed class probabilities [B, classes], centred per row."""
        own = self._labels[torch.from_numpy(batch.parameters.samples)].to(batch.views.device).softmax(1)
        partner = self._labels[torch.from_numpy(batch.parameters.partners)].to(batch.views.device).softmax(1)
        weights = batch.weights[:, None]
        mixed: Tensor = (weights * own + (1.0 - weights) * partner).clamp_min(1e-6).log()
        return mixed - mixed.mean(1, keepdim=True)


class StoredLabels:
    """Read the label of every (epoch, sample) from safetensors shards, mapped into memory.

    ``shape`` is (images, classes); it, the codec and the epochs must agree with what is stored, where given.

    Raises:
        IntegrityError: a shard or codebook is missing or damaged.
        MismatchError: the labels are another codec's or of another number of classes, or, later, an epoch or
            sample is asked for that was not stored.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, int] | None = None,
        *,
        codec: str | None = None,
        epochs: int | None = None,
    ) -> None:
        self.name = name
        parsed = None if codec is None else parse_codec(codec)
        images, classes = shape or (None, None)
        self._store = open_store(folder, codec=parsed, epochs=epochs, images=images, classes=classes)
        self.epochs = self._store.epochs

    def logits(self, batch: Batch) -> Tensor:
        """Return the stored logits of the batch's samples at its epoch."""
        return send(self.rows(batch.epoch, batch.parameters.samples), batch.views.device)

    def rows(self, epoch: int, samples: np.ndarray) -> Tensor:
        """Return the stored logits [B, classes] of ``samples`` [B] at ``epoch``, in float32 on the CPU."""
        return self._store.rows(epoch, samples)


@dataclass(frozen=True)
class ResidualLabels:
    """Give what ``generator`` leaves out of the logits of ``teacher``."""

    teacher: LabelSource
    generator: LabelSource
    name: str = "residual"

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the difference of their logits [B, classes], or None where one of them has none."""
        theirs, ours = self.teacher.logits(batch), self.generator.logits(batch)
        return None if theirs is None or ours is None else theirs - ours


@dataclass(frozen=True)
class CorrectedLabels:
    """Add the residuals in ``stored`` to the logits of ``generator``, for the views that were stored.

    A prediction and the coded rest of it, as in predictive coding; ours, not the paper's.
    """

    generator: LabelSource
    stored: StoredLabels

    @property
    def name(self) -> str:
        """Return what tables call the source: the generator's name."""
        return self.generator.name

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the corrected logits [B, classes].

        Raises:
            MismatchError: the batch is of an epoch, or has samples, that have no residual.
        """
        found = self.generator.logits(batch)
        return None if found is None else found + self.stored.logits(batch)


def _holds_logits(found: Tensor, shape: tuple[int, int] | None) -> bool:
    whole = found.is_floating_point() and found.ndim == 2 and found.numel() > 0
    return whole and (shape is None or tuple(found.shape[-2:]) == tuple(shape))


def _refuse(path: Path, found: Tensor | None, shape: tuple[int, int] | None) -> IntegrityError:
    wanted = "" if shape is None else f" of {shape[0]:,} images and {shape[1]:,} classes"
    got = "none" if found is None else f"{found.dtype} {list(found.shape)}"
    return IntegrityError(compose(f"finite logits{wanted} in {path}", got, "store the labels again"))
