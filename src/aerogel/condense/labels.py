"""Where a student's labels come from: one protocol for generators, teachers and stored labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.codecs.codebooks import fit_codebooks, sample_size
from aerogel.condense.codecs.encodings import Encoding, build_encoding
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import (
    CODEBOOK,
    epochs_per_shard,
    open_store,
    read_codebooks,
    stored_epochs,
    write_codebooks,
    write_shards,
)
from aerogel.condense.views import ViewParameters, Views, send
from aerogel.core.crew import ALONE, Crew
from aerogel.core.documents import read_tensors
from aerogel.core.folders import write_bytes_atomic
from aerogel.core.progress import track
from aerogel.core.randomness import permutation
from aerogel.errors import IntegrityError, MismatchError, compose

if TYPE_CHECKING:
    from aerogel.condense.student import TrainingSet
    from aerogel.zoo.imageset import ImageSet

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


def store_labels(
    folder: Path,
    source: LabelSource,
    batches: Iterator[Batch],
    *,
    epochs: int,
    images: int,
    classes: int,
    codec: str = "stored-fp16",
    seed: int = 0,
    crew: Crew = ALONE,
) -> None:
    """Write the labels of ``epochs`` x ``images`` views as safetensors shards of at most 128 MiB.

    ``batches`` gives every sample of epoch 0, then of epoch 1, and so on; labels computed in the batches of a
    training run equal, in float32, those the run would compute online. Shards already in ``folder`` are kept:
    ``batches`` must then start at :func:`~aerogel.condense.codecs.shards.stored_epochs`. Codebooks come
    first, fitted to labels of the first epochs that ``seed`` draws, in a file of their own. The processes of
    a ``crew`` each give batches of their own, which together are all; the first one writes.

    Raises:
        MismatchError: the batches are of other epochs, the source gives no soft labels, or the shards in
            ``folder`` are another codec's.
        DataError: the codec cannot hold a logit.
    """
    parsed = parse_codec(codec)
    first = crew.tell(stored_epochs(folder, parsed))
    if first >= epochs:
        return
    labelled = _Labelled(source, batches)
    seen: list[tuple[int, Tensor, Tensor]] = []
    if crew.tell(parsed.has_codebook and first == 0 and not (folder / CODEBOOK).exists()):
        few = min(epochs, -(-sample_size(parsed) // images))
        seen = list(labelled.take(0, few))
        block, filled = _fill(seen, build_encoding(parse_codec("stored-fp32"), classes), 0, few, images, crew)
        _require_all(filled, labelled, 0, epochs)
        if crew.leads:
            drawn = permutation(seed, "codebook", 0, few * images)[: sample_size(parsed)]
            rows = block["labels"].flatten(0, 1)[torch.from_numpy(drawn)]
            write_codebooks(folder, fit_codebooks(parsed, rows, seed), parsed)
        crew.tell("fitted")
    encoding = build_encoding(parsed, classes, read_codebooks(folder, parsed, classes))
    span = epochs_per_shard(encoding, images)
    while first < epochs:
        last = min(first + span, epochs)
        known = (each for each in seen if first <= each[0] < last)
        taken = chain(known, labelled.take(first, last))
        block, filled = _fill(taken, encoding, first, last, images, crew)
        _require_all(filled, labelled, first, epochs)
        if crew.leads:
            write_shards(folder, block, codec=parsed, classes=classes, first_epoch=first)
        first = last
    crew.tell("stored")  # nobody reads before all is written


def store_views(
    folder: Path,
    source: LabelSource,
    data: ImageSet | TrainingSet,
    views: Views,
    *,
    epochs: int,
    device: str,
    title: str,
    codec: str = "stored-fp16",
    seed: int = 0,
    crew: Crew = ALONE,
) -> None:
    """Write the labels of the first ``epochs`` epochs of ``views`` of ``data``, in the order of the images.

    ``title`` is what the progress bar says. Otherwise as :func:`store_labels`.
    """
    first = crew.tell(stored_epochs(folder))
    parts = cut_samples(np.arange(len(data)))
    order = crew.take_turns([(epoch, part) for epoch in range(first, epochs) for part in parts])
    batches = (
        make_batch(data.images, data.labels, views, epoch, part, device)
        for epoch, part in track(order, total=len(order), label=title, unit="batch")
    )
    store_labels(
        folder,
        source,
        batches,
        epochs=epochs,
        images=len(data),
        classes=len(data.class_names),
        codec=codec,
        seed=seed,
        crew=crew,
    )


def cut_samples(samples: np.ndarray) -> list[np.ndarray]:
    """Return ``samples`` [N] in batches of 250, the last one smaller."""
    return np.split(samples, range(_BATCH, len(samples), _BATCH))


class _Labelled:
    """Label batches as they are taken."""

    def __init__(self, source: LabelSource, batches: Iterator[Batch]) -> None:
        self.source = source
        self.batches = batches
        self.next = next(batches, None)

    def take(self, first: int, last: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield epoch, samples [B] and logits [B, classes] up to a batch of another epoch than these."""
        while self.next is not None and first <= self.next.epoch < last:
            logits = self.source.logits(self.next)
            if logits is None:
                raise MismatchError(
                    compose("a source of soft labels", self.source.name, "store a teacher's labels")
                )
            yield self.next.epoch, torch.from_numpy(self.next.parameters.samples), logits.cpu().float()
            self.next = next(self.batches, None)


def _fill(
    labelled: Iterable[tuple[int, Tensor, Tensor]],
    encoding: Encoding,
    first: int,
    last: int,
    images: int,
    crew: Crew,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the code of whole epochs, tensors [epochs, images, ...], and which labels came anywhere."""
    filled = torch.zeros(last - first, images, dtype=torch.int32)
    block = {
        name: torch.zeros(last - first, images, *field.shape, dtype=field.dtype)
        for name, field in encoding.layout.items()
    }
    for epoch, samples, logits in labelled:
        filled[epoch - first, samples] = 1
        for name, code in encoding.encode(logits).items():
            block[name][epoch - first, samples] = code
    # Where one process has a code the others have zero bytes, so bytes add up to it in any number format.
    joined = {name: crew.add(part.view(torch.uint8)).view(part.dtype) for name, part in block.items()}
    return joined, crew.add(filled) > 0


def _require_all(filled: Tensor, labelled: _Labelled, first: int, epochs: int) -> None:
    if not bool(filled.all()):
        got = "too few" if labelled.next is None else f"one of epoch {labelled.next.epoch}"
        raise MismatchError(
            compose(
                f"batches of the epochs {first} to {epochs - 1} in order",
                got,
                "start them at stored_epochs(folder)",
            )
        )


def _holds_logits(found: Tensor, shape: tuple[int, int] | None) -> bool:
    whole = found.is_floating_point() and found.ndim == 2 and found.numel() > 0
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
