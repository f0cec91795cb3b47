"""Image towers that turn images in [0, 1] into features, whatever network is inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.families.preparation import Preparation, prepare


class Tower(nn.Module, ABC):
    """Prepare images as the network inside was trained with, and read features from it.

    Features are what the network itself takes for the whole image, if it has such a thing, followed by the
    cells of a ``grid`` over its maps; with a grid of 1 the cells are left out where there is such a thing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preparation: Preparation, grid: int) -> None:
        super().__init__()
        self.preparation = preparation
        self.grid = grid
        self.register_buffer("mean", torch.tensor(preparation.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).view(-1, 1, 1))

    @abstractmethod
    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the whole [B, d], or None, and maps [B, D, H, W] of ``pixels`` [B, C, S, S]."""

    def finish(self, cells: Tensor) -> Tensor:
        """Turn means over maps [B, cells, D] into features [B, cells, d]."""
        return cells

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, d] in float32 for ``images`` [B, C, S, S] in [0, 1]; grey serves as RGB."""
        channels = len(self.preparation.mean)
        pixels = prepare(images.expand(-1, channels, -1, -1), self.preparation, self.mean, self.std)
        whole, maps = self.see(pixels)
        parts = [] if whole is None else [whole]
        if whole is None or self.grid > 1:
            cells = functional.adaptive_avg_pool2d(maps, self.grid).flatten(2)
            parts.append(self.finish(cells.transpose(1, 2)).transpose(1, 2).flatten(1))
        return torch.cat(parts, 1).float()


class TokenTower(Tower):
    """Read a vision transformer: ``prefix`` tokens that stand for no place, then one per patch.

    With a prefix the whole image is what the model pools, or else its first token; without, there are only
    cells.
    """

    def __init__(self, network: nn.Module, preparation: Preparation, grid: int, prefix: int) -> None:
        super().__init__(preparation, grid)
        self.network = network
        self.prefix = prefix

    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the pooled token, if there is a class token, and the patches as maps."""
        found = self.network(pixel_values=pixels)
        tokens: Tensor = found.last_hidden_state
        maps = fold_tokens(tokens[:, self.prefix :])
        if not self.prefix:
            return None, maps
        return tokens[:, 0] if found.pooler_output is None else found.pooler_output, maps


class MapTower(Tower):
    """Read a convolutional network's last maps.

    ``norm`` names the layer that the network applies to their mean, if there is one.
    """

    def __init__(
        self, network: nn.Module, preparation: Preparation, grid: int, norm: str | None = None
    ) -> None:
        super().__init__(preparation, grid)
        self.network = network
        self.norm = norm

    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the maps alone."""
        found: Any = self.network(pixel_values=pixels)
        return None, found.last_hidden_state

    def finish(self, cells: Tensor) -> Tensor:
        """Normalise each mean where the network normalises its own."""
        if self.norm is None:
            return cells
        normed: Tensor = self.network.get_submodule(self.norm)(cells)
        return normed


def fold_tokens(tokens: Tensor) -> Tensor:
    """Return maps [B, d, side, side] of the patch tokens [B, side x side, d] of a square image."""
    side = isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
