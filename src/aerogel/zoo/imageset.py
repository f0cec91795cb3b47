"""A labelled image set, in memory or on disk: pixels, labels, class names and where images came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aerogel.core.randomness import uniforms
from aerogel.errors import DataError, compose

CHUNK = 4096
CHUNK_BYTES = 2**24


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Hold N labelled images.

    images: uint8 [N, C, H, W] with C = 1 or 3; labels: int64 [N], indices into class_names;
    ids: one provenance string per image (a relative path or "split:index").

    Raises:
        DataError: shapes, types or lengths disagree, or a label is outside the class list.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    name: str
    licence: str

    def __post_init__(self) -> None:
        problems = _structural_problems(self)
        if problems:
            raise DataError(
                compose(
                    "uint8 images [N, C, H, W] with one int64 label in the class list and one id each",
                    "; ".join(problems),
                    "convert the tensors before building the ImageSet",
                )
            )

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of every image."""
        _, channels, height, width = self.images.shape
        return int(channels), int(height), int(width)

    @property
    def _chunk(self) -> int:
        """Return how many images are read at once."""
        channels, height, width = self.shape
        return max(1, min(CHUNK, CHUNK_BYTES // (channels * height * width)))

    def subset(self, indices: torch.Tensor | np.ndarray | Sequence[int]) -> ImageSet:
        """Take the images at `indices` (or where a mask is true), in that order, keeping the class list."""
        index = torch.as_tensor(indices)
        index = torch.nonzero(index).flatten() if index.dtype == torch.bool else index.to(torch.int64)
        ids = tuple(self.ids[i] for i in index.tolist())
        # Images that lie in a file stay there.
        select = getattr(self.images, "select", None) if not torch.is_tensor(self.images) else None
        images = self.images[index] if select is None else select(index)
        return replace(self, images=images, labels=self.labels[index], ids=ids)

    def per_class(self) -> dict[int, torch.Tensor]:
        """Map every class to the ascending int64 indices of its images (empty for a class without any)."""
        return {c: torch.nonzero(self.labels == c).flatten() for c in range(len(self.class_names))}

    def check(self) -> ImageSet:
        """Return the set itself when every class has an image and no two classes share a name.

        Raises:
            DataError: listing every problem.
        """
        problems = [f"class {n!r} is listed twice" for n in sorted(_duplicates(self.class_names))]
        counts = torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        empty = [name for name, count in zip(self.class_names, counts, strict=True) if count == 0]
        problems += [f"class {name!r} has no images" for name in empty]
        if not self.class_names:
            problems.append("there are no classes")
        if problems:
            raise DataError(
                compose(
                    f"at least one image for each class of {self.name!r}",
                    "; ".join(problems),
                    "add images for these classes or take them off the class list",
                )
            )
        return self

    def split(self, fraction: float, seed: int, stream: str = "split") -> tuple[ImageSet, ImageSet]:
        """Divide into (kept, held out), the same share of every class; both keep the original order.

        fraction: share held out, in (0, 1), of the whole set to the nearest image; the classes'
        shares are rounded by largest remainder, and a class with two or more images is on both sides.
        Which image goes where depends on (seed, stream, its position) only.

        Raises:
            DataError: fraction outside (0, 1).
        """
        if not 0.0 < fraction < 1.0:
            raise DataError(compose("a fraction between 0 and 1", repr(fraction), "pass for example 0.2"))
        positions = np.arange(len(self), dtype=np.int64)
        keys = uniforms(seed, stream, 0, positions, 1)[:, 0]
        labels = self.labels.numpy()
        counts = np.bincount(labels, minlength=len(self.class_names))
        held = np.zeros(len(self), dtype=bool)
        for label, quota in enumerate(_share(counts, fraction)):
            members = positions[labels == label]
            held[members[np.argsort(keys[members], kind="stable")[:quota]]] = True
        return self.subset(positions[~held]), self.subset(positions[held])

    def fingerprint(self) -> str:
        """Return the SHA-256 of pixels, labels and class names (not of ids, name or licence)."""
        head = {"shape": list(self.images.shape), "class_names": list(self.class_names)}
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        chunk = self._chunk
        for start in range(0, len(self), chunk):
            digest.update(self.images[start : start + chunk].contiguous().numpy().data)
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return (mean, standard deviation) per channel of pixels scaled to [0, 1].

        Computed from exact integer histograms, so the result does not depend on the thread count;
        the deviation is the population's (divided by N).
        """
        means, deviations = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255
        chunk = self._chunk
        for channel in range(self.shape[0]):
            histogram = torch.zeros(256, dtype=torch.int64)
            for start in range(0, len(self), chunk):
                pixels = self.images[start : start + chunk, channel].flatten()
                histogram += torch.bincount(pixels, minlength=256)
            weights = histogram.double() / max(int(histogram.sum()), 1)
            mean = float((weights * levels).sum())
            means.append(mean)
            deviations.append(float((weights * (levels - mean) ** 2).sum().sqrt()))
        return tuple(means), tuple(deviations)


def _structural_problems(data: ImageSet) -> list[str]:
    problems = []
    images, labels = data.images, data.labels
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        problems.append(f"images {images.dtype} {list(images.shape)}, C must be 1 or 3")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        problems.append(f"labels {labels.dtype} {list(labels.shape)}")
    elif not len(images) == len(labels) == len(data.ids):
        problems.append(f"{len(images)} images, {len(labels)} labels and {len(data.ids)} ids")
    elif len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(data.class_names):
        low, high = int(labels.min()), int(labels.max())
        problems.append(f"labels from {low} to {high} for a list of {len(data.class_names)} classes")
    return problems


def _duplicates(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _share(counts: np.ndarray, fraction: float) -> list[int]:
    exact = counts * fraction
    quotas = np.floor(exact).astype(np.int64)
    missing = round(int(counts.sum()) * fraction) - int(quotas.sum())
    order = np.argsort(-(exact - quotas), kind="stable")
    quotas[order[:missing]] += 1
    ceiling = np.maximum(counts - 1, 0)
    return [int(q) for q in np.clip(quotas, np.minimum(1, ceiling), ceiling)]
