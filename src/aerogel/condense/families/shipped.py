"""Backbones that ship in the wheel."""

from __future__ import annotations

from torch import Tensor, nn

from aerogel.condense.families.backbone import Backbone, hash_weights
from aerogel.zoo.backbones import load_weights


class CentredRGB(nn.Module):
    """Feed RGB or grey images in [0, 1] to a network that expects RGB around 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, d] of ``images`` [B, 1 or 3, S, S]."""
        features: Tensor = self.network((images.expand(-1, 3, -1, -1) - 0.5) / 0.25)
        return features


def load_shipped(name: str) -> Backbone:
    """Load a backbone from the zoo; every convolution takes a low-rank change.

    Raises:
        UnknownNameError: the zoo has no such backbone.
    """
    network, size_bytes = load_weights(name)
    module = CentredRGB(network).eval().requires_grad_(False)
    convolutions = [key for key, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    return Backbone(
        name=name,
        module=module,
        features=4 * network.width,
        lora_targets=tuple(convolutions),
        sha256=hash_weights(module),
        size_bytes=size_bytes,
    )
