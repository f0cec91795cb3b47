"""What the label generator asks of a backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

TextEmbedding = Callable[[tuple[str, ...], tuple[str, ...]], Tensor]

_SMALLEST_FOR_GRID = 16


@dataclass(frozen=True)
class Backbone:
    """Hold a frozen image tower and what is needed to name it exactly.

    ``module`` maps images [B, C, S, S] in [0, 1] to features [B, ``features``] in float32. ``lora_targets``
    are the names, inside ``module``, of the layers that take a low-rank change; ``norms`` maps the names of
    convolutions to those of the batch normalisations that alone read them. ``text`` maps (class names,
    templates) to unit rows [classes, d] where the backbone has a text tower, d being the features of the
    whole image, which come first; ``logit_scale`` and ``logit_bias`` are then its temperature and the bias of
    its logits. ``grid`` x ``grid`` are the cells that the features are of. ``unit_features`` says that the
    features have length 1, so that they need no standardisation. ``sha256`` is over the weights,
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
    logit_bias: float = 0.0
    unit_features: bool = False
    norms: Mapping[str, str] = field(default_factory=dict)


def choose_grid(size: int) -> int:
    """Return the cells per side that suit images of ``size`` pixels: 2 from 16 pixels up, else 1.

    A teacher's logits for a CutMix view are close to a sum over places, which the mean over the whole view
    cannot follow.
    """
    return 2 if size >= _SMALLEST_FOR_GRID else 1


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of all parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tuple(value.shape)}|{value.dtype}|".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()
