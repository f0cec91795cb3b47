"""Stage 2: starting images, the crops that the teacher is surest of (RDED, arXiv 2312.03526, section 4)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import SelectionConfig
from aerogel.condense.teacher import predict
from aerogel.condense.views import crop
from aerogel.core.crew import ALONE, Crew
from aerogel.core.documents import read_json, read_tensors
from aerogel.core.folders import write_bytes_atomic, write_text_atomic
from aerogel.core.randomness import derive_seed, permutation, uniforms
from aerogel.errors import DataError, IntegrityError, compose
from aerogel.zoo.imageset import ImageSet

_MOSAIC_FROM = 96
_SCORED_AT_ONCE = 250
_IMAGES = "images.safetensors"
_ORIGINS = "provenance.json"
_MOST_BYTES = 1 << 32
_LONGEST = 300


@dataclass(frozen=True)
class Patch:
    """Tell where one patch of a stored image comes from.

    ``source`` is the id of the original image, ``box`` the crop (centre x, centre y, half width, half height)
    in units where the image spans [-1, 1], ``loss`` the teacher's cross-entropy to the true class.
    """

    source: str
    box: tuple[float, float, float, float]
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**asdict(self), "box": list(self.box)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Patch:
        """Read what :meth:`to_dict` returned."""
        x, y, width, height = (float(side) for side in data["box"])
        return Patch(str(data["source"]), (x, y, width, height), float(data["loss"]))


@dataclass(frozen=True)
class Selection:
    """Hold the chosen images [N, C, S, S] (uint8), sorted by class, labels [N] and the patches' origins."""

    images: Tensor
    labels: Tensor
    patches: tuple[tuple[Patch, ...], ...]
    tiles: int


def tiles_per_side(config: SelectionConfig, size: int) -> int:
    """Return how many patches per side are tiled into one image of ``size`` pixels.

    Raises:
        DataError: the patches would not be of one whole size, or under 8 pixels.
    """
    if config.tiles == "auto":
        return 2 if size >= _MOSAIC_FROM and size % 2 == 0 else 1
    tiles = int(config.tiles)
    if size % tiles or size // tiles < 8:
        raise DataError(
            compose(
                f"tiles that divide {size} pixels into patches of 8 or more",
                f"tiles={tiles}",
                'set tiles="auto" or 1',
            )
        )
    return tiles


def _candidate_boxes(ids: np.ndarray, config: SelectionConfig, seed: int) -> np.ndarray:
    """Return ``crops`` square crop boxes for every image id, [len(ids), crops, 4]."""
    draws = uniforms(seed, "select", 0, ids, 3 * config.crops).reshape(-1, config.crops, 3)
    low, high = config.crop_scale
    half = np.sqrt(low + (high - low) * draws[..., 0])
    centre_x = (2.0 * draws[..., 1] - 1.0) * (1.0 - half)
    centre_y = (2.0 * draws[..., 2] - 1.0) * (1.0 - half)
    return np.stack([centre_x, centre_y, half, half], axis=-1)


def _score(teacher: nn.Module, images: Tensor, boxes: np.ndarray, label: int, device: str) -> np.ndarray:
    """Return the teacher's cross-entropy [N, crops] to ``label`` of the crops ``boxes`` [N, crops, 4]."""
    losses = []
    crops = boxes.shape[1]
    step = max(1, _SCORED_AT_ONCE // crops)
    with torch.no_grad():
        for start in range(0, len(images), step):
            part = images[start : start + step].repeat_interleave(crops, 0)
            shown = crop(part, boxes[start : start + step].reshape(-1, 4), int(images.shape[-1]))
            logits = teacher(shown.to(device)).float()
            target = torch.full((len(part),), label, device=logits.device)
            losses.append(functional.cross_entropy(logits, target, reduction="none").cpu())
    scores: np.ndarray = torch.cat(losses).numpy()
    return scores.reshape(-1, crops)


def _select_class(
    data: ImageSet,
    teacher: nn.Module,
    label: int,
    members: np.ndarray,
    wanted: int,
    config: SelectionConfig,
    seed: int,
    patch: int,
    device: str,
) -> tuple[Tensor, list[Patch]]:
    """Return the ``wanted`` best patches [wanted, C, patch, patch] (uint8) of one class and their origins."""
    drawn = members[permutation(seed, f"select/{label}", 0, len(members))]
    candidates = np.sort(drawn[: config.candidates] if config.candidates else drawn)
    pictures = data.images[torch.from_numpy(candidates)]
    full = int(pictures.shape[-1])
    if config.order == "random":
        boxes = np.broadcast_to(np.array([0.0, 0.0, 1.0, 1.0]), (len(candidates), 1, 4))
    else:
        boxes = _candidate_boxes(candidates, config, seed)
    scores = _score(teacher, pictures, boxes, label, device)
    best = scores.argmin(1)
    surest = scores[np.arange(len(candidates)), best]
    rank = np.argsort(surest, kind="stable")
    if config.order == "random":
        rank = permutation(seed, f"select/random/{label}", 0, len(candidates))
    elif config.order == "representative":
        logits = predict(teacher, pictures, device).numpy()
        rank = _rank_by_group(logits, surest, wanted, derive_seed(seed, "select/groups", label))
    chosen = rank[:wanted]
    kept = boxes[chosen, best[chosen]]
    pixels = _shrink(crop(pictures[torch.from_numpy(chosen)], kept, full), patch)
    origins = [
        Patch(data.ids[candidates[index]], tuple(float(v) for v in box), float(scores[index, best[index]]))  # type: ignore[arg-type]
        for index, box in zip(chosen, kept, strict=True)
    ]
    return pixels, origins


def _rank_by_group(logits: np.ndarray, surest: np.ndarray, groups: int, seed: int) -> np.ndarray:
    """Return one index per group of images [N, classes], that of the lowest loss ``surest`` [N] in it.

    Groups are those of k-means on the teacher's logits; where fewer distinct images than groups exist, the
    surest of the images left over follow.
    """
    distinct = min(groups, len(np.unique(logits, axis=0)))
    means = KMeans(distinct, n_init=3, random_state=seed % 2**32).fit(logits)
    members = [np.flatnonzero(means.labels_ == group) for group in range(distinct)]
    first = [int(group[np.argmin(surest[group])]) for group in members if len(group)]
    first.sort(key=lambda index: (surest[index], index))
    ranked = np.argsort(surest, kind="stable")
    return np.concatenate([np.array(first, dtype=np.int64), ranked[~np.isin(ranked, first)]])


def _shrink(views: Tensor, size: int) -> Tensor:
    """Return ``views`` [N, C, S, S] (float in [0, 1]) as uint8 of ``size`` pixels, antialiased."""
    if views.shape[-1] != size:
        views = functional.interpolate(views, size=size, mode="bilinear", align_corners=False, antialias=True)
    return (views * 255.0).round().clamp(0, 255).to(torch.uint8)


def select_images(
    data: ImageSet,
    teacher: nn.Module,
    config: SelectionConfig,
    *,
    ipc: int,
    seed: int,
    device: str,
    crew: Crew = ALONE,
) -> Selection:
    """Pick ``ipc`` images per class: score crops, keep the surest of each image, tile the best.

    The result depends on the data, the teacher, the config and the seed; not on batch sizes or on other
    classes. The processes of a ``crew`` share the classes, and all get the result.

    Raises:
        DataError: a class has fewer images than are asked for; nothing is computed then.
    """
    size = data.shape[1]
    tiles = tiles_per_side(config, size)
    wanted = ipc * tiles * tiles
    classes = {label: members.numpy() for label, members in data.per_class().items()}
    short = [
        f"{data.class_names[label]!r} has {len(members)}"
        for label, members in classes.items()
        if min(len(members), config.candidates or len(members)) < wanted
    ]
    if short:
        raise DataError(
            compose(
                f"at least {wanted} candidate images in every class (ipc {ipc} x {tiles * tiles} patches)",
                "; ".join(short[:10]) + f"; candidates={config.candidates}",
                "lower ipc or tiles, raise candidates, or add images",
            )
        )
    teacher.to(device).eval()
    found = []
    for label in crew.take_turns(list(classes)):
        picked = _select_class(
            data, teacher, label, classes[label], wanted, config, seed, size // tiles, device
        )
        found.append((label, *picked))
    images, labels, patches = [], [], []
    for label, pixels, origins in sorted(crew.gather(found), key=lambda each: each[0]):
        # Patch k of every image is one of the k-th best: each mosaic gets its share of the surest crops.
        grid = pixels.view(tiles, tiles, ipc, *pixels.shape[1:])
        images.append(grid.permute(2, 3, 0, 4, 1, 5).reshape(ipc, pixels.shape[1], size, size))
        labels.append(torch.full((ipc,), label, dtype=torch.int64))
        patches += [tuple(origins[index::ipc]) for index in range(ipc)]
    return Selection(torch.cat(images), torch.cat(labels), tuple(patches), tiles)


def save_selection(found: Selection, folder: Path) -> None:
    """Write images and labels, and where each patch comes from."""
    tensors = {"images": found.images, "labels": found.labels}
    write_bytes_atomic(folder / _IMAGES, save(tensors))
    origins = [[patch.to_dict() for patch in patches] for patches in found.patches]
    write_text_atomic(folder / _ORIGINS, json.dumps(origins, indent=1) + "\n")


def load_selection(folder: Path, tiles: int) -> Selection:
    """Read what :func:`save_selection` wrote, of images of ``tiles`` x ``tiles`` patches.

    Raises:
        IntegrityError: a file is damaged, or they do not fit each other.
    """
    tensors, _ = read_tensors(folder / _IMAGES)
    origins = read_json(folder / _ORIGINS, most_bytes=_MOST_BYTES)
    try:
        images, labels = tensors["images"], tensors["labels"]
        patches = tuple(tuple(Patch.from_dict(patch) for patch in row) for row in origins)
    except (LookupError, TypeError, ValueError, OverflowError) as failure:
        raise _refuse(folder, repr(failure)[:_LONGEST]) from failure
    if (
        (images.dtype, images.ndim, labels.dtype) != (torch.uint8, 4, torch.int64)
        or labels.shape != images.shape[:1]
        or [len(row) for row in patches] != [tiles * tiles] * len(images)
    ):
        raise _refuse(folder, f"images {list(images.shape)}, labels {list(labels.shape)}")
    return Selection(images, labels, patches, tiles)


def _refuse(folder: Path, got: str) -> IntegrityError:
    return IntegrityError(
        compose(f"images, labels and patches of a selection in {folder}", got, "delete it, to select again")
    )
