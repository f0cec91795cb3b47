"""Stored labels on disk: safetensors shards over epochs and samples, checked when they are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from aerogel.condense.codecs.codebooks import are_codebooks
from aerogel.condense.codecs.encodings import Encoding, build_encoding
from aerogel.condense.codecs.naming import Codec, parse_codec
from aerogel.core.canonical import canonical_json, parse_json, show_value
from aerogel.core.documents import read_tensors
from aerogel.core.folders import write_bytes_atomic
from aerogel.errors import ConfigError, IntegrityError, MismatchError, compose
from aerogel.measure import size_bytes

__all__ = [
    "CODEBOOK",
    "SHARD_BYTES",
    "Store",
    "epochs_per_shard",
    "list_store",
    "open_store",
    "read_codebooks",
    "store_bytes",
    "stored_epochs",
    "write_codebooks",
    "write_shards",
]

SHARD_BYTES = 128 * 2**20 - 2**10  # leaves room for the header
CODEBOOK = "codebook.safetensors"
_PATTERN = "store-*.safetensors"
_FACTS = "store"
_LONGEST, _LONGEST_NAME = 1000, 100
_REMEDY = "delete the folder and store the labels again"
# Written without saying so, so that the oldest stores are what they always were.
_FACTS_OF_PLAIN = {"first_epoch"}
_PLAIN = {"stored-fp32": torch.float32, "stored-fp16": torch.float16}


@dataclass(frozen=True)
class _Shard:
    """Hold one file: tensors [epochs, samples, ...], mapped into memory, and where in the store they lie."""

    path: Path
    codec: str
    classes: int
    first_epoch: int
    first_sample: int
    images: int
    tensors: dict[str, Tensor]

    @property
    def epochs(self) -> int:
        return int(next(iter(self.tensors.values())).shape[0])

    @property
    def samples(self) -> int:
        return int(next(iter(self.tensors.values())).shape[1])


class Store:
    """Read the labels of any (epoch, sample) from the shards that :func:`open_store` checked."""

    def __init__(self, codec: Codec, encoding: Encoding, classes: int, spans: list[list[_Shard]]) -> None:
        self.codec = codec
        self.classes = classes
        self.images = spans[0][0].images
        self.epochs = spans[-1][0].first_epoch + spans[-1][0].epochs
        self._encoding = encoding
        self._spans = spans
        self._starts = [span[0].first_epoch for span in spans]

    def rows(self, epoch: int, samples: np.ndarray) -> Tensor:
        """Return the logits [B, classes] (float32) of ``samples`` [B] at ``epoch``.

        Raises:
            MismatchError: the epoch or a sample was not stored.
        """
        if not 0 <= epoch < self.epochs:
            raise MismatchError(
                compose(
                    f"an epoch below {self.epochs}, all that are stored",
                    f"epoch {epoch}",
                    "store more epochs",
                )
            )
        if len(samples) and not 0 <= samples.min() <= samples.max() < self.images:
            raise MismatchError(
                compose(
                    f"samples below {self.images}, all that are stored",
                    f"{samples.min()} to {samples.max()}",
                    "store the labels of these images",
                )
            )
        span = self._spans[int(np.searchsorted(self._starts, epoch, side="right")) - 1]
        if len(span) == 1:
            return self._encoding.decode(_pick(span[0], epoch, samples))
        logits = torch.empty(len(samples), self.classes)
        for shard in span:
            inside = (samples >= shard.first_sample) & (samples < shard.first_sample + shard.samples)
            picked = _pick(shard, epoch, samples[inside])
            logits[torch.from_numpy(inside)] = self._encoding.decode(picked)
        return logits


def _pick(shard: _Shard, epoch: int, samples: np.ndarray) -> dict[str, Tensor]:
    rows = torch.from_numpy(samples - shard.first_sample)
    return {name: tensor[epoch - shard.first_epoch][rows] for name, tensor in shard.tensors.items()}


def open_store(
    folder: Path,
    *,
    codec: Codec | None = None,
    epochs: int | None = None,
    images: int | None = None,
    classes: int | None = None,
) -> Store:
    """Open the shards in ``folder`` and check all that reading them relies on; what is given must agree.

    Raises:
        IntegrityError: a shard or codebook is missing, truncated, or holds other names, types, shapes, or
            values than were written, or the shards leave out epochs or samples.
        MismatchError: the store is sound, but by another codec or of another number of classes.
    """
    shards = _read_shards(folder)
    if not shards:
        raise IntegrityError(compose(f"shards {_PATTERN}", f"none in {folder}", "store the labels again"))
    one = shards[0]
    for shard in shards:
        if (shard.codec, shard.classes, shard.images) != (one.codec, one.classes, one.images):
            raise _damaged(shard.path, "the codec, classes and images of the other shards", "others")
    wanted = (codec.name if codec else one.codec, classes or one.classes)
    if wanted != (one.codec, one.classes):
        raise MismatchError(
            compose(
                f"labels of {wanted[1]} classes as {wanted[0]} in {folder}",
                f"{one.classes} classes as {one.codec}",
                "store the labels again, or pass the folder of those",
            )
        )
    found = _parse(one)
    encoding = build_encoding(found, one.classes, read_codebooks(folder, found, one.classes))
    for shard in shards:
        _check_values(shard, encoding)
    spans = _line_up(shards)
    if not _is_whole(spans[-1]):
        raise _damaged(spans[-1][-1].path, f"shards of all {one.images} samples of its epoch", "fewer")
    store = Store(found, encoding, one.classes, spans)
    if (epochs or store.epochs, images or store.images) != (store.epochs, store.images):
        raise IntegrityError(
            compose(
                f"labels of {epochs or store.epochs} epochs of {images or store.images} images in {folder}",
                f"{store.epochs} epochs of {store.images}",
                _REMEDY,
            )
        )
    return store


def stored_epochs(folder: Path, codec: Codec | None = None) -> int:
    """Return how many epochs from 0 the shards in ``folder`` hold in full.

    Raises:
        IntegrityError: a shard cannot be read, or an epoch between others is missing.
        MismatchError: they are by another codec than ``codec``.
    """
    shards = _read_shards(folder)
    for shard in shards:
        if codec is not None and shard.codec != codec.name:
            raise MismatchError(
                compose(f"shards of {codec.name} in {folder}", shard.codec, "choose another folder")
            )
    spans = _line_up(shards)
    if spans and not _is_whole(spans[-1]):
        spans.pop()
    return spans[-1][0].first_epoch + spans[-1][0].epochs if spans else 0


def epochs_per_shard(encoding: Encoding, images: int) -> int:
    """Return how many whole epochs go into one shard; at least 1, which is cut over samples if need be."""
    per_epoch = images * sum(field.bytes for field in encoding.layout.values())
    return max(1, SHARD_BYTES // per_epoch)


def write_shards(
    folder: Path, block: Mapping[str, Tensor], *, codec: Codec, classes: int, first_epoch: int
) -> None:
    """Write the code of whole epochs, tensors [epochs, images, ...], as one shard or, if too large, several.

    No shard is larger than 128 MiB, unless a single label is. Equal blocks give equal files.
    """
    epochs, images = next(iter(block.values())).shape[:2]
    view = sum(tensor[0, 0].numel() * tensor.element_size() for tensor in block.values())
    span = max(1, SHARD_BYTES // (view * epochs))
    stem = f"store-{first_epoch:05d}"
    facts = {"codec": codec.name, "classes": classes, "first_epoch": first_epoch, "images": images}
    if span >= images:
        plain = (
            {"first_epoch": str(first_epoch)}
            if codec.name in _PLAIN
            else _spell({**facts, "first_sample": 0})
        )
        write_bytes_atomic(folder / f"{stem}.safetensors", save(dict(block), plain))
        return
    for part, start in enumerate(range(0, images, span)):
        tensors = {name: tensor[:, start : start + span].contiguous() for name, tensor in block.items()}
        placed = _spell({**facts, "first_sample": start})
        write_bytes_atomic(folder / f"{stem}-{part:05d}.safetensors", save(tensors, placed))


def _spell(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return facts as one entry of a file's metadata: several would be written in an order that changes."""
    return {_FACTS: canonical_json(facts)}


def write_codebooks(folder: Path, books: Mapping[str, Tensor], codec: Codec) -> None:
    """Write codebooks into a file of their own beside the shards."""
    write_bytes_atomic(folder / CODEBOOK, save(dict(books), _spell({"codec": codec.name})))


def read_codebooks(folder: Path, codec: Codec, classes: int) -> dict[str, Tensor]:
    """Read the codebooks of a codec, none for one without.

    Raises:
        IntegrityError: the file is missing or damaged.
    """
    if not codec.has_codebook:
        return {}
    path = folder / CODEBOOK
    facts, books = _read(path)
    if facts.get("codec") != codec.name or not are_codebooks(books, codec, classes):
        raise _damaged(path, f"codebooks of {codec.name} for {classes} classes", "others")
    return books


def store_bytes(folder: Path) -> int:
    """Return what stored labels take on disk: shards and codebooks, by stat."""
    return sum(size_bytes(path) for path in list_store(folder))


def list_store(folder: Path) -> list[Path]:
    """Return the files of stored labels in ``folder``: shards in order, then codebooks."""
    return [*sorted(folder.glob(_PATTERN)), *folder.glob(CODEBOOK)]


def _damaged(path: Path, expected: str, got: str) -> IntegrityError:
    return IntegrityError(compose(f"{expected} in {path}", got, _REMEDY))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts and the tensors of a file, mapped into memory."""
    tensors, written = read_tensors(path)
    try:
        facts = parse_json(written[_FACTS].encode("utf-8")) if _FACTS in written else written
        if not isinstance(facts, dict):
            raise ValueError("facts that are no mapping")
    except ValueError as failure:
        raise _damaged(path, "facts of a store", str(failure)[:_LONGEST]) from failure
    return facts, tensors


def _read_shards(folder: Path) -> list[_Shard]:
    """Return the shards in the order of their epochs and samples."""
    shards = [_read_shard(path) for path in folder.glob(_PATTERN)]
    return sorted(shards, key=lambda shard: (shard.first_epoch, shard.first_sample))


def _read_shard(path: Path) -> _Shard:
    facts, tensors = _read(path)
    shapes = {tuple(tensor.shape[:2]) for tensor in tensors.values()}
    if len(shapes) != 1 or len(min(shapes)) != 2 or 0 in min(shapes):
        raise _damaged(path, "tensors of the same epochs and samples", f"shapes {sorted(shapes)}")
    samples = min(shapes)[1]
    if set(facts) == _FACTS_OF_PLAIN:
        labels = tensors.get("labels", torch.empty(0))
        known = [name for name, dtype in _PLAIN.items() if labels.ndim == 3 and labels.dtype == dtype]
        if not known or not str(facts["first_epoch"]).isdecimal():
            raise _damaged(path, "labels in float32 or float16 from some epoch", show_value(facts))
        place = int(facts["first_epoch"])
        return _Shard(path, known[0], int(labels.shape[2]), place, 0, samples, tensors)
    for name in ("classes", "first_epoch", "first_sample", "images"):
        if type(facts.get(name)) is not int or not 0 <= facts[name] < 2**32:
            raise _damaged(path, "the shard's place and sizes as numbers", show_value(facts))
    codec = facts.get("codec")
    if not isinstance(codec, str) or len(codec) > _LONGEST_NAME:
        raise _damaged(path, "the name of a codec", show_value(codec))
    where = facts["first_epoch"], facts["first_sample"], facts["images"]
    return _Shard(path, codec, facts["classes"], *where, tensors)


def _parse(shard: _Shard) -> Codec:
    try:
        codec = parse_codec(shard.codec)
    except ConfigError as failure:
        raise _damaged(shard.path, "the name of a codec", repr(shard.codec)) from failure
    misfit = "no classes" if shard.classes < 1 else codec.find_misfit(shard.classes)
    if misfit:
        raise _damaged(shard.path, "a codec for its classes", misfit)
    return codec


def _check_values(shard: _Shard, encoding: Encoding) -> None:
    layout = encoding.layout
    found = {name: (tensor.dtype, tuple(tensor.shape[2:])) for name, tensor in shard.tensors.items()}
    expected = {name: (field.dtype, field.shape) for name, field in layout.items()}
    if found != expected:
        raise _damaged(shard.path, f"tensors as {expected}", f"{found}")
    fault = encoding.find_fault({name: tensor.flatten(0, 1) for name, tensor in shard.tensors.items()})
    if fault:
        raise _damaged(shard.path, "what the codec writes", fault)


def _line_up(shards: list[_Shard]) -> list[list[_Shard]]:
    """Return the shards by epochs: every list covers the same epochs, its shards one run of samples each.

    All but the last list cover all samples.
    """
    spans: list[list[_Shard]] = []
    for shard in shards:
        last = spans[-1][-1] if spans else None
        if last is not None and (shard.first_epoch, shard.epochs) == (last.first_epoch, last.epochs):
            wanted = (last.first_epoch, last.first_sample + last.samples)
            spans[-1].append(shard)
        else:
            wanted = (last.first_epoch + last.epochs if last else 0, 0)
            if spans and not _is_whole(spans[-1]):
                raise _damaged(shard.path, f"all samples of epoch {spans[-1][0].first_epoch} before", "fewer")
            spans.append([shard])
        if (shard.first_epoch, shard.first_sample) != wanted:
            raise _damaged(
                shard.path,
                f"labels from epoch {wanted[0]}, sample {wanted[1]}, where those before end",
                f"from epoch {shard.first_epoch}, sample {shard.first_sample}",
            )
    return spans


def _is_whole(span: list[_Shard]) -> bool:
    return sum(shard.samples for shard in span) == span[0].images
