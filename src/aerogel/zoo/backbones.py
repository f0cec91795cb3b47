"""Find and load the weights that ship in the wheel."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import torch
from safetensors import safe_open

from aerogel.core.folders import sha256_file
from aerogel.core.registry import Registry
from aerogel.errors import IntegrityError, compose
from aerogel.zoo.resnet8 import ResNet8


@dataclass(frozen=True)
class Card:
    """Say what a shipped model is: file, hash, licence, data, the command that made it, and its figures."""

    file: str
    sha256: str
    licence: str
    data: str
    command: str
    figures: dict[str, float]


CARDS: Registry[Card] = Registry("zoo model")
CARDS.register("aerogel/shapes-resnet8")(
    Card(
        file="shapes-resnet8.safetensors",
        sha256="04dba520fbb6036191ecf489a12dcfe0d52871f60ba8e6b35e09ba1ab75e78c7",
        licence="Apache-2.0",
        data="400,000 drawn images (aerogel.zoo.shapes; outlines 0 to 3 are one circle); no photographs",
        command="python recipes/zoo/train_shapes_resnet8.py --out src/aerogel/zoo/weights",
        figures={"outline_accuracy": 0.352, "texture_accuracy": 0.718},
    )
)


def load_weights(name: str) -> tuple[ResNet8, int]:
    """Return the shipped network called ``name`` in float32 and the size of its file in bytes.

    Raises:
        UnknownNameError: no such model ships; the nearest name is given.
        IntegrityError: the file is not the one that the card describes.
    """
    card = CARDS.get(name)
    with as_file(files("aerogel.zoo") / "weights" / card.file) as path:
        found = sha256_file(path)
        if found != card.sha256:
            raise IntegrityError(
                compose(f"{card.file} with SHA-256 {card.sha256[:12]}", found[:12], "install aerogel again")
            )
        with safe_open(path, framework="pt") as stored:
            width = int(stored.metadata()["width"])
            weights = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        size_bytes = path.stat().st_size
    with torch.random.fork_rng(devices=[]):
        network = ResNet8(width)
    # Counters of batches are not shipped: nothing reads them in evaluation mode.
    network.load_state_dict({**network.state_dict(), **weights})
    return network.eval(), size_bytes
