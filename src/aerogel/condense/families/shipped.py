"""Backbones that ship in the wheel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.families.backbone import Backbone, choose_grid, hash_weights
from aerogel.zoo.backbones import load_weights
from aerogel.zoo.resnet8 import ResNet8


class CentredRGB(nn.Module):
    """Feed RGB or grey images in [0, 1] to a network that expects RGB around 0; pool its maps to a grid."""

    def __init__(self, network: ResNet8, grid: int = 1) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, d x grid x grid] of ``images`` [B, 1 or 3, S, S]."""
        maps = self.network.maps((images.expand(-1, 3, -1, -1) - 0.5) / 0.25)
        return functional.adaptive_avg_pool2d(maps, self.grid).flatten(1)


def load_shipped(name: str, grid: int | None = None, *, size: int = 0) -> Backbone:
    """Load a backbone from the zoo; every convolution takes a low-rank change.

    Its features are those of ``grid`` x ``grid`` cells; None is 2 x 2 for images of a ``size`` from 16 pixels
    up, else 1.

    Raises:
        UnknownNameError: the zoo has no such backbone.
    """
    network, size_bytes = load_weights(name)
    grid = grid or choose_grid(size)
    module = CentredRGB(network, grid).eval().requires_grad_(False)
    convolutions = [key for key, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    return Backbone(
        name=name,
        module=module,
        features=4 * network.width * grid**2,
        grid=grid,
        lora_targets=tuple(convolutions),
        sha256=hash_weights(module),
        size_bytes=size_bytes,
        norms={f"network.{conv}": f"network.{norm}" for conv, norm in ResNet8.NORMS.items()},
    )
