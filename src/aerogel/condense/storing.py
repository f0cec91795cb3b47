"""Write labels: of every view, by a codec; one for each image; or the class alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from aerogel.condense.codecs.codebooks import fit_codebooks, sample_size
from aerogel.condense.codecs.encodings import Encoding, build_encoding
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.codecs.shards import (
    CODEBOOK,
    epochs_per_shard,
    read_codebooks,
    stored_epochs,
    write_codebooks,
    write_shards,
)
from aerogel.condense.labels import Batch, LabelSource, make_batch
from aerogel.condense.views import Views
from aerogel.core.crew import ALONE, Crew
from aerogel.core.folders import write_bytes_atomic
from aerogel.core.progress import track
from aerogel.core.randomness import permutation
from aerogel.errors import MismatchError, compose

if TYPE_CHECKING:
    from aerogel.condense.student import TrainingSet
    from aerogel.zoo.imageset import ImageSet

_BATCH = 250


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
