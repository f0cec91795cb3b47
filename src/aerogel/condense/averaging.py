"""A moving average of a network's weights, which a killed training continues with."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Averaged(nn.Module):
    """Hold a network and the exponential moving average of all that its state holds, as buffers.

    Parameters and normalisation statistics are averaged, counts are copied. The share of the old average is
    ``decay``, or (1 + t) / (10 + t) at step t while that is less, so that the random weights of the start are
    soon forgotten.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = network
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for index, value in enumerate(network.state_dict().values()):
            self.register_buffer(f"average_{index}", value.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network gives for ``images``."""
        return cast(Tensor, self.network(images))

    def update_(self) -> None:
        """Move the average towards the weights that a step has just left, in place."""
        step = int(self.steps)
        keep = min(self.decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for average, value in self._pairs():
                if average.is_floating_point():
                    average.lerp_(value, 1.0 - keep)
                else:
                    average.copy_(value)
            self.steps += 1

    def settle_(self) -> None:
        """Put the average in the place of the network's weights."""
        with torch.no_grad():
            for average, value in self._pairs():
                value.copy_(average)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        values = self.network.state_dict().values()
        return [(self.get_buffer(f"average_{index}"), value) for index, value in enumerate(values)]
