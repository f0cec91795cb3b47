"""Augmented views as a pure function of (seed, epoch, sample).

Peers store the crop, the flip and the CutMix box of every view beside its label, or ask their users to patch
the data loader so that a second run draws the same numbers. Here a view is *addressed*: the key (seed, epoch,
sample) fixes every number through a counter-based generator, so a label needs no stored coordinates and a
view does not depend on the batch size, the workers, the process count or where a run was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aerogel.condense.config import ViewConfig
from aerogel.core.devices import is_cuda
from aerogel.core.randomness import permutation, uniforms
from aerogel.errors import DataError, compose

_DRAWS = 10
_STREAM = "views"
_PARTNER_STREAM = "views/partner"


@dataclass(frozen=True)
class ViewParameters:
    """Hold the geometry of a batch of views, all arrays over the batch.

    ``boxes`` [B, 4] are (centre x, centre y, half width, half height) of the crop in units where the image
    spans [-1, 1]; a negative half width means a horizontal flip. ``partners`` [B] are sample ids. ``patches``
    [B, 4] are the CutMix rectangles (left, top, right, bottom) in pixels of the view, empty where none is
    pasted.
    """

    samples: np.ndarray
    partners: np.ndarray
    boxes: np.ndarray
    patches: np.ndarray

    def mixing_weight(self, size: int) -> Tensor:
        """Return the share [B] (float32) of each view's pixels that is the sample's and not its partner's."""
        left, top, right, bottom = self.patches.T
        return torch.from_numpy(
            (1.0 - (right - left) * (bottom - top) / float(size * size)).astype(np.float32)
        )


def _crop_boxes(draws: np.ndarray, config: ViewConfig, tiles: int) -> np.ndarray:
    """Return crop boxes [B, 4] from uniform draws [B, 6]: area, aspect ratio, x, y, flip, tile."""
    low, high = config.crop_scale
    area = low + (high - low) * draws[:, 0]
    ratio_low, ratio_high = np.log(config.crop_ratio[0]), np.log(config.crop_ratio[1])
    ratio = np.exp(ratio_low + (ratio_high - ratio_low) * draws[:, 1])
    half_width = np.minimum(np.sqrt(area * ratio), 1.0)
    half_height = np.minimum(np.sqrt(area / ratio), 1.0)
    centre_x = (2.0 * draws[:, 2] - 1.0) * (1.0 - half_width)
    centre_y = (2.0 * draws[:, 3] - 1.0) * (1.0 - half_height)
    sign = np.where(draws[:, 4] < config.flip, -1.0, 1.0)
    boxes = np.stack([centre_x, centre_y, half_width * sign, half_height], axis=1)
    if tiles > 1:
        tile = np.minimum((draws[:, 5] * tiles * tiles).astype(np.int64), tiles * tiles - 1)
        origin_x = (2.0 * (tile % tiles) + 1.0) / tiles - 1.0
        origin_y = (2.0 * (tile // tiles) + 1.0) / tiles - 1.0
        boxes = boxes / tiles
        boxes[:, 0] += origin_x
        boxes[:, 1] += origin_y
    return boxes


def _cutmix_patches(draws: np.ndarray, probability: float, size: int) -> np.ndarray:
    """Return CutMix rectangles [B, 4] in pixels from draws [B, 4]: apply, area, x, y (arXiv 1905.04899)."""
    side = np.where(draws[:, 0] < probability, np.sqrt(draws[:, 1]) * size, 0.0).astype(np.int64)
    left = (draws[:, 2] * (size - side + 1)).astype(np.int64)
    top = (draws[:, 3] * (size - side + 1)).astype(np.int64)
    return np.stack([left, top, left + side, top + side], axis=1)


@lru_cache(maxsize=4)
def _partners(seed: int, epoch: int, population: int) -> np.ndarray:
    return permutation(seed, _PARTNER_STREAM, epoch, population)


@dataclass(frozen=True)
class Views:
    """Address the augmented views of a population of ``population`` images.

    ``tiles`` is the number of patches per side that each image is a mosaic of. With ``config.open_tiles`` a
    view looks at one patch, enlarged to the full size (multi-formation, arXiv 2205.14959); else at the mosaic
    as it is.
    """

    config: ViewConfig
    seed: int
    population: int
    tiles: int = 1

    def parameters(self, epoch: int, samples: np.ndarray, *, size: int) -> ViewParameters:
        """Return the geometry of the views of ``samples`` [B] at ``epoch``, for views of ``size`` pixels."""
        samples = np.asarray(samples, dtype=np.int64)
        draws = uniforms(self.seed, _STREAM, epoch, samples, _DRAWS)
        partners = samples
        if self.config.cutmix > 0.0:
            partners = _partners(self.seed, epoch, self.population)[samples]
        boxes = _crop_boxes(draws, self.config, self._opened())
        return ViewParameters(
            samples, partners, boxes, _cutmix_patches(draws[:, 6:], self.config.cutmix, size)
        )

    def boxes(self, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Return the crop boxes [B, 4] alone of the views of ``samples`` at ``epoch``."""
        draws = uniforms(self.seed, _STREAM, epoch, np.asarray(samples, dtype=np.int64), _DRAWS)
        return _crop_boxes(draws, self.config, self._opened())

    def render(
        self, images: Tensor, epoch: int, samples: np.ndarray, device: str | None = None
    ) -> tuple[Tensor, ViewParameters]:
        """Return the views [B, C, S, S] (float32 in [0, 1]) of ``samples`` and their geometry.

        ``images`` is the whole population [N, C, S, S] as uint8. The pasted part of a CutMix view is cut from
        the partner's own view of the same epoch. The images that are shown are taken to ``device`` and the
        views rendered there, without one where ``images`` are.
        """
        size = int(images.shape[-1])
        found = self.parameters(epoch, samples, size=size)
        views = self._crop(images, found.samples, found.boxes, device)
        mixed = np.flatnonzero(found.patches[:, 2] > found.patches[:, 0])
        if len(mixed):
            partners = found.partners[mixed]
            donors = self._crop(images, partners, self.boxes(epoch, partners), device)
            chosen = send(torch.from_numpy(mixed), views.device)
            mask = _patch_mask(found.patches[mixed], size, views.device)
            views[chosen] = torch.where(mask, donors, views[chosen])
        return views, found

    def _crop(self, images: Tensor, samples: np.ndarray, boxes: np.ndarray, device: str | None) -> Tensor:
        pictures = images[torch.from_numpy(samples)]
        if self._opened() > 1:
            pictures, boxes = _take_tiles(pictures, boxes, self._opened())
        return crop(send(pictures, device or images.device), boxes, int(images.shape[-1]))

    def _opened(self) -> int:
        return self.tiles if self.config.open_tiles else 1


def _take_tiles(images: Tensor, boxes: np.ndarray, tiles: int) -> tuple[Tensor, np.ndarray]:
    """Return each mosaic's tile that its box lies in, and the ``boxes`` [B, 4] in units of that tile.

    Cut out before it is resampled, a tile's edge cannot blend with the neighbour's.

    Raises:
        DataError: the images do not divide into so many tiles.
    """
    count, channels, size, _ = images.shape
    if size % tiles:
        raise DataError(
            compose(
                f"images whose side is a multiple of {tiles} tiles", f"{size} pixels", "set open_tiles=False"
            )
        )
    side = size // tiles
    place = np.clip(((boxes[:, :2] + 1.0) / 2.0 * tiles).astype(np.int64), 0, tiles - 1)
    grid = images.reshape(count, channels, tiles, side, tiles, side)
    picked = grid[torch.arange(count), :, torch.from_numpy(place[:, 1]), :, torch.from_numpy(place[:, 0])]
    local = boxes * tiles
    local[:, :2] -= 2.0 * place + 1.0 - tiles
    return picked, local


def crop(images: Tensor, boxes: np.ndarray, size: int) -> Tensor:
    """Return ``boxes`` [B, 4] of ``images`` [B, C, H, W] (uint8), bilinearly as [B, C, size, size].

    The sampling grid is built element by element: a batched matrix product may round differently for another
    batch size, and a view must not depend on its neighbours.
    """
    centres = send(torch.from_numpy(boxes.astype(np.float32)), images.device)
    steps = (torch.arange(size, dtype=torch.float32, device=images.device) * 2.0 + 1.0) / size - 1.0
    x = centres[:, 0:1] + centres[:, 2:3] * steps
    y = centres[:, 1:2] + centres[:, 3:4] * steps
    grid = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)],
        dim=-1,
    )
    pixels = images.to(torch.float32) / 255.0
    return functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def send(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Return a CPU tensor on ``device``, without waiting for what CUDA computes just now."""
    return tensor.to(device, non_blocking=is_cuda(device))


def _patch_mask(patches: np.ndarray, size: int, device: torch.device) -> Tensor:
    """Return a boolean mask [B, 1, size, size] that is true inside each rectangle."""
    edges = send(torch.from_numpy(patches), device)
    line = torch.arange(size, device=device)
    columns = (line >= edges[:, 0:1]) & (line < edges[:, 2:3])
    rows = (line >= edges[:, 1:2]) & (line < edges[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
