"""What the label generator asks of a backbone, and where to find one by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from aerogel.errors import ConfigError, compose

TextEmbedding = Callable[[tuple[str, ...], tuple[str, ...]], Tensor]


@dataclass(frozen=True)
class Backbone:
    """Hold a frozen image tower and what is needed to name it exactly.

    ``module`` maps images [B, C, S, S] in [0, 1] to features [B, ``features``] in float32. ``lora_targets``
    are the names, inside ``module``, of the layers that take a low-rank change; ``norms`` maps the names of
    convolutions to those of the batch normalisations that alone read them. ``text`` maps (class names,
    templates) to unit rows [classes, ``features``] where the backbone has a text tower; ``logit_scale`` is
    then its temperature. ``grid`` x ``grid`` are the cells that the features are of. ``unit_features`` says
    that the features have length 1, so that they need no standardisation. ``sha256`` is over the weights,
    ``size_bytes`` what they take at the precision they are published in.
    """

    name: str
    module: nn.Module
    features: int
    lora_targets: tuple[str, ...]
    sha256: str
    size_bytes: int
    grid: int = 1
    text: TextEmbedding | None = None
    logit_scale: float = 1.0
    unit_features: bool = False
    norms: Mapping[str, str] = field(default_factory=dict)


def load_backbone(name: str, grid: int | None = None, *, size: int = 0) -> Backbone:
    """Load a backbone by zoo name (``aerogel/...``), or a CLIP by folder or Hugging Face hub name.

    ``grid`` asks for features of that many cells per side, None for what suits the backbone and images of
    ``size`` pixels.

    Raises:
        ConfigError: the backbone has no feature maps to take a grid of.
        UnknownNameError: no backbone of that name ships with Aerogel.
        DataError: the folder or the hub's answer is no model that can be used.
        MissingDependencyError: transformers is not installed.
    """
    if name.startswith("aerogel/") and not Path(name).exists():
        from aerogel.condense.families.shipped import load_shipped

        return load_shipped(name, grid, size=size)
    if grid not in (None, 1):
        raise ConfigError(
            compose(
                f"projector.grid of 1 or auto for {name!r}, whose features are of the whole image",
                f"{grid}",
                "leave projector.grid out",
            )
        )
    from aerogel.condense.families.clip import load_clip

    return load_clip(name)


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of all parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tuple(value.shape)}|{value.dtype}|".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()
