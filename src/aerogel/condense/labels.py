"""Where a student's labels come from: one protocol for generators, teachers and stored labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.views import ViewParameters, Views
from aerogel.core.canonical import show_value
from aerogel.core.documents import read_tensors
from aerogel.core.folders import write_bytes_atomic
from aerogel.errors import IntegrityError, MismatchError, compose

_SHARD_BYTES = 128 * 2**20


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
        own = functional.cross_entropy(logits, self.labels, reduction="none")
        partner = functional.cross_entropy(logits, self.partner_labels, reduction="none")
        return (self.weights * own + (1.0 - self.weights) * partner).mean()


def make_batch(
    images: Tensor, labels: Tensor, views: Views, epoch: int, samples: np.ndarray, device: str
) -> Batch:
    """Render the views of ``samples`` [B] at ``epoch`` of ``images`` [N, C, S, S] (uint8) on ``device``."""
    rendered, found = views.render(images, epoch, samples)
    return Batch(
        views=rendered.to(device),
        parameters=found,
        epoch=epoch,
        labels=labels[torch.from_numpy(found.samples)].to(device),
        partner_labels=labels[torch.from_numpy(found.partners)].to(device),
        weights=found.mixing_weight(int(images.shape[-1])).to(device),
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
        if found is None or not _holds_logits(found, 2, shape) or not bool(found.isfinite().all()):
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

    ``shape`` is (images, classes), which the shards must have; without it they must agree with each other.

    Raises:
        IntegrityError: a shard is damaged, missing or of another shape.
        MismatchError: an epoch is asked for that was not stored.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, int] | None = None) -> None:
        self.name = name
        self._starts: list[int] = []
        self._shards: list[Tensor] = []
        for first, block in _read_shards(folder, shape):
            self._starts.append(first)
            self._shards.append(block)
        if not self._shards:
            raise IntegrityError(
                compose("shards store-*.safetensors", f"none in {folder}", "store the labels again")
            )
        self.epochs = self._starts[-1] + len(self._shards[-1])

    def logits(self, batch: Batch) -> Tensor:
        """Return the stored logits of the batch's samples at its epoch."""
        if not 0 <= batch.epoch < self.epochs:
            raise MismatchError(
                compose(
                    f"an epoch below {self.epochs}, all that are stored",
                    f"epoch {batch.epoch}",
                    "store more epochs",
                )
            )
        shard = int(np.searchsorted(self._starts, batch.epoch, side="right")) - 1
        rows = self._shards[shard][batch.epoch - self._starts[shard]]
        return rows[torch.from_numpy(batch.parameters.samples)].float().to(batch.views.device)


def store_labels(
    folder: Path,
    source: LabelSource,
    batches: Iterator[Batch],
    *,
    epochs: int,
    images: int,
    classes: int,
    dtype: torch.dtype,
) -> None:
    """Write the labels of ``epochs`` x ``images`` views as safetensors shards of at most 128 MiB.

    ``batches`` gives every sample of epoch 0, then of epoch 1, and so on; labels computed in the batches of a
    training run equal, in float32, those the run would compute online. Shards already in ``folder`` are kept:
    ``batches`` must then start at :func:`stored_epochs`.
    """
    per_epoch = images * classes * torch.finfo(dtype).bits // 8
    span = max(1, _SHARD_BYTES // per_epoch)
    first = stored_epochs(folder)
    while first < epochs:
        last = min(first + span, epochs)
        block = torch.empty(last - first, images, classes, dtype=dtype)
        left = (last - first) * images
        while left > 0:
            batch = next(batches, None)
            if batch is None or not first <= batch.epoch < last:
                raise MismatchError(
                    compose(
                        f"batches of the epochs {first} to {epochs - 1} in order",
                        "too few" if batch is None else f"one of epoch {batch.epoch}",
                        "start them at stored_epochs(folder)",
                    )
                )
            logits = source.logits(batch)
            if logits is None:
                raise MismatchError(
                    compose("a source of soft labels", source.name, "store a teacher's labels")
                )
            block[batch.epoch - first, torch.from_numpy(batch.parameters.samples)] = logits.cpu().to(dtype)
            left -= len(batch.labels)
        path = folder / f"store-{first:05d}.safetensors"
        write_bytes_atomic(path, save({"labels": block}, {"first_epoch": str(first)}))
        first = last


def stored_epochs(folder: Path) -> int:
    """Return how many epochs from 0 the shards in ``folder`` hold."""
    done = 0
    for first, block in _read_shards(folder, None):
        done = first + len(block)
    return done


def _read_shards(folder: Path, shape: tuple[int, int] | None) -> Iterator[tuple[int, Tensor]]:
    """Yield each shard's first epoch and labels [epochs, images, classes], in order and without gaps.

    Raises:
        IntegrityError: a shard is damaged, missing or of another shape than the others.
    """
    done = 0
    for path in sorted(folder.glob("store-*.safetensors")):
        tensors, facts = read_tensors(path)
        block = tensors.get("labels")
        if block is None or not _holds_logits(block, 3, shape):
            raise _refuse(path, block, shape)
        if facts.get("first_epoch") != str(done):
            raise IntegrityError(
                compose(
                    f"labels from epoch {done} on in {path}",
                    f"from {show_value(facts.get('first_epoch'))}",
                    "store them again",
                )
            )
        yield done, block
        done, shape = done + len(block), (block.shape[1], block.shape[2])


def _holds_logits(found: Tensor, dims: int, shape: tuple[int, int] | None) -> bool:
    whole = found.is_floating_point() and found.ndim == dims and found.numel() > 0
    return whole and (shape is None or tuple(found.shape[-2:]) == tuple(shape))


def _refuse(path: Path, found: Tensor | None, shape: tuple[int, int] | None) -> IntegrityError:
    wanted = "" if shape is None else f" of {shape[0]:,} images and {shape[1]:,} classes"
    got = "none" if found is None else f"{found.dtype} {list(found.shape)}"
    return IntegrityError(compose(f"finite logits{wanted} in {path}", got, "store the labels again"))


def save_one_per_image(path: Path, source: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    """Write the logits [N, classes] of ``source`` for the plain ``images`` [N, C, S, S] (uint8)."""
    source.eval()
    with torch.no_grad():
        logits = torch.cat([source(part.float() / 255.0).float() for part in images.split(256)])
    write_bytes_atomic(path, save({"labels": logits.to(dtype)}))


def save_hard(path: Path, labels: Tensor) -> None:
    """Write class indices [N] in the smallest unsigned type that holds them."""
    small = labels.to(torch.uint8) if int(labels.max()) < 256 else labels.to(torch.int32)
    write_bytes_atomic(path, save({"labels": small}))
