"""Load the backbones that ship in the wheel."""

from __future__ import annotations

import torch
from safetensors import safe_open

from aerogel.zoo.cards import open_weights
from aerogel.zoo.resnet8 import ResNet8


def load_weights(name: str) -> tuple[ResNet8, int]:
    """Return the shipped network called ``name`` in float32 and the size of its file in bytes.

    Raises:
        UnknownNameError: no such model ships; the nearest name is given.
        MismatchError: the model is no backbone.
        IntegrityError: the file is not the one that the card describes.
    """
    with open_weights(name, "backbone") as path:
        with safe_open(path, framework="pt") as stored:
            width = int(stored.metadata()["width"])
            weights = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        size_bytes = path.stat().st_size
    with torch.random.fork_rng(devices=[]):
        network = ResNet8(width)
    # Counters of batches are not shipped: nothing reads them in evaluation mode.
    network.load_state_dict({**network.state_dict(), **weights})
    return network.eval(), size_bytes
