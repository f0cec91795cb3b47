"""Stage 2b, off by default: move the pixels of shrunk patches, so that the backbone sees in them what it saw.

Implements the image update of arXiv 2408.08201; its optimiser, steps and rate are not said there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import RefineConfig, SelectionConfig
from aerogel.condense.selection import Selection, tiles_per_side
from aerogel.condense.views import crop
from aerogel.core.documents import read_tensors
from aerogel.core.folders import write_bytes_atomic
from aerogel.errors import ConfigError, DataError, IntegrityError, compose
from aerogel.zoo.imageset import ImageSet

_AT_ONCE = 64
_IMAGES = "images.safetensors"


@dataclass(frozen=True)
class RefineState:
    """Tell of one group of patches: its number from 0, and its mean G before and after."""

    group: int
    before: float
    after: float


def require_mosaics(config: SelectionConfig, size: int) -> None:
    """Check that images of ``size`` pixels are mosaics of shrunk patches, which alone lost anything.

    Raises:
        ConfigError: every image is stored at its own size.
        DataError: the patches would not be of one whole size.
    """
    if tiles_per_side(config, size) == 1:
        raise ConfigError(
            compose(
                "images that are mosaics of shrunk patches, for refine.steps above 0",
                f"images of {size} pixels that are kept at their size (one tile), where nothing was lost",
                "set selection.tiles=2 or more, or refine.steps=0",
            )
        )


def split_mosaics(images: Tensor, tiles: int) -> Tensor:
    """Return the patches [N x tiles x tiles, C, P, P] of ``images`` [N, C, S, S], row by row of each."""
    count, channels, size, _ = images.shape
    patch = size // tiles
    grid = images.reshape(count, channels, tiles, patch, tiles, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, patch, patch)


def join_mosaics(patches: Tensor, tiles: int) -> Tensor:
    """Return the images that :func:`split_mosaics` took apart."""
    _, channels, patch, _ = patches.shape
    grid = patches.reshape(-1, tiles, tiles, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, tiles * patch, tiles * patch)


def find_originals(data: ImageSet, selection: Selection) -> tuple[Tensor, np.ndarray]:
    """Return, for every patch in the order of :func:`split_mosaics`, its image's index and its box [P, 4].

    Raises:
        DataError: an image that a patch comes from is not in ``data``.
    """
    places = {name: index for index, name in enumerate(data.ids)}
    patches = [patch for row in selection.patches for patch in row]
    missing = sorted({patch.source for patch in patches} - places.keys())
    if missing:
        raise DataError(
            compose(
                "the images that the patches were cut from",
                f"{len(missing)} are not there, such as {missing[0]}",
                "pass the data that the selection was made from",
            )
        )
    indices = torch.tensor([places[patch.source] for patch in patches])
    return indices, np.array([patch.box for patch in patches], dtype=np.float64)


def measure_gap(features: nn.Module, patches: Tensor, wanted: Tensor, size: int) -> Tensor:
    """Return G [P], the mean squared difference of the features of enlarged patches from ``wanted`` [P, d].

    ``patches`` [P, C, p, p] in [0, 1] are enlarged to ``size`` pixels as a view enlarges them.
    """
    shown = functional.interpolate(patches, size=size, mode="bilinear", align_corners=False)
    gap: Tensor = (features(shown).float() - wanted).square().mean(1)
    return gap


def refine_images(
    data: ImageSet,
    selection: Selection,
    features: nn.Module,
    config: RefineConfig,
    *,
    device: str,
    checkpoint: Path,
) -> Iterator[RefineState]:
    """Lower G(E, p) = MSE(E(p), E(p^)) of every patch by its own pixels; yield after each group of them.

    p is the crop at full size, p^ the stored patch enlarged again, E the backbone ``features``. Adam moves
    the stored pixels; after rounding to 256 levels a patch that did not come closer stays as it was, so that
    G never rises. Nothing is random, and a patch does not depend on the others. Groups that are in
    ``checkpoint`` are not done again; :func:`gather_images` reads them.
    """
    network = copy.deepcopy(features).to(device).eval().requires_grad_(False)
    size = int(data.images.shape[-1])
    indices, boxes = find_originals(data, selection)
    stored = split_mosaics(selection.images, selection.tiles)
    for group, start in enumerate(range(0, len(stored), _AT_ONCE)):
        path = checkpoint / f"group-{group:05d}.safetensors"
        if not path.exists():
            part = slice(start, start + _AT_ONCE)
            whole = crop(data.images[indices[part]], boxes[part], size).to(device)
            with torch.no_grad():
                wanted = network(whole).float()
            patches, gaps = _refine_group(network, stored[part].to(device), wanted, size, config)
            checkpoint.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, save({"patches": patches.cpu(), "gaps": gaps.cpu()}))
        before, after = _read_group(path)[1].mean(1).tolist()
        yield RefineState(group, before, after)


def _refine_group(
    network: nn.Module, stored: Tensor, wanted: Tensor, size: int, config: RefineConfig
) -> tuple[Tensor, Tensor]:
    """Return the better patches (uint8) and G [2, P], before and after."""
    first = stored.float() / 255.0
    pixels = first.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([pixels], lr=config.lr)
    for _ in range(config.steps):
        optimiser.zero_grad(set_to_none=True)
        # A sum, so that a patch's gradient does not depend on how many others there are.
        torch.autograd.backward(measure_gap(network, pixels, wanted, size).sum())
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0.0, 1.0)
    moved = (pixels.detach() * 255.0).round().to(torch.uint8)
    with torch.no_grad():
        before = measure_gap(network, first, wanted, size)
        after = measure_gap(network, moved.float() / 255.0, wanted, size)
    closer = after < before
    patches = torch.where(closer[:, None, None, None], moved, stored)
    return patches, torch.stack([before, torch.where(closer, after, before)])


def gather_images(selection: Selection, checkpoint: Path) -> tuple[Selection, float, float]:
    """Return the selection with the pixels of finished groups, and the mean G before and after.

    Raises:
        IntegrityError: a group is damaged, or they are not those of the selection.
    """
    groups = [_read_group(path) for path in sorted(checkpoint.glob("group-*.safetensors"))]
    found = torch.cat([patches for patches, _ in groups]) if groups else torch.empty(0)
    expected = split_mosaics(selection.images, selection.tiles).shape
    if found.shape != expected:
        got = f"{list(found.shape)} in {checkpoint}"
        raise IntegrityError(compose(f"updated patches {list(expected)}", got, "delete it, to begin anew"))
    images = join_mosaics(found, selection.tiles)
    before, after = torch.cat([gaps for _, gaps in groups], 1).double().mean(1).tolist()
    return Selection(images, selection.labels, selection.patches, selection.tiles), before, after


def _read_group(path: Path) -> tuple[Tensor, Tensor]:
    """Return the patches [P, C, p, p] (uint8) of one group and their G [2, P], before and after."""
    tensors, _ = read_tensors(path)
    patches, gaps = tensors.get("patches"), tensors.get("gaps")
    if (
        patches is None
        or gaps is None
        or (patches.dtype, patches.ndim) != (torch.uint8, 4)
        or gaps.shape != (2, len(patches))
        or not gaps.is_floating_point()
        or not bool(gaps.isfinite().all())
    ):
        got = str({name: (value.dtype, list(value.shape)) for name, value in tensors.items()})
        raise IntegrityError(
            compose(f"the pixels and gaps of a group of patches in {path}", got[:300], "delete it")
        )
    return patches, gaps


def save_refined(found: Selection, folder: Path) -> None:
    """Write the images of a selection."""
    write_bytes_atomic(folder / _IMAGES, save({"images": found.images}))


def load_refined(folder: Path, chosen: Selection) -> Selection:
    """Return ``chosen`` with the images that :func:`save_refined` wrote.

    Raises:
        IntegrityError: the file is damaged, or holds images of another shape.
    """
    tensors, _ = read_tensors(folder / _IMAGES)
    found = tensors.get("images")
    if found is None or found.dtype != torch.uint8 or found.shape != chosen.images.shape:
        got = "none" if found is None else f"{found.dtype} {list(found.shape)}"
        wanted = f"updated images {list(chosen.images.shape)} in {folder / _IMAGES}"
        raise IntegrityError(compose(wanted, got, "delete the folder, to update them again"))
    return replace(chosen, images=found)
