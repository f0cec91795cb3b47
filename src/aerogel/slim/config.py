"""The settings of slimming, one frozen dataclass per stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aerogel.core.config import config

Augment = Literal["none", "flip", "crop"]
Padding = Literal["all", "windows", "none"]
Weighting = Literal["paper", "constant", "dynamic"]


@config("slim.align", version=1)
@dataclass(frozen=True)
class AlignConfig:
    """Set how a student is aligned with its teachers (arXiv 2312.05284, sections 3.2 and 4.1).

    ``batch_size`` is of one optimiser step, over all processes; each process computes its share in
    ``accumulate`` parts, to save memory: SAM-B at 1024 px takes 6 GiB photo by photo. ``lr`` is the peak of
    the rate, which a ``warmup`` share of all steps rises to and which then falls by ``schedule``, to zero if
    it falls. ``clip`` is the largest norm of the gradient and ``weight_decay`` AdamW's; 0 is none. ``ema``
    above 0 ends with the moving average of the weights, decaying by that factor a step.

    The features weigh in for ``weight_epochs`` epochs (N in eq. 8; the published code has 11 there).
    ``weighting`` "paper" is constant at ``weight`` for bottlenecks and falling ("dynamic") for the embedding.
    ``repair_qkv`` lets queries, keys and values of global blocks count, which the published code forgets.
    ``mask_padding`` "all" leaves out what fills up windows and photos, "windows" the former, "none" nothing,
    as published.

    ``dtype`` is what is computed in (weights stay as they are). ``checkpoint_blocks`` computes each block
    twice instead of keeping all that happens in it. ``cache_bytes`` is how much disk the teacher's embeddings
    of whole photos may take, in float16. ``augment`` "flip" mirrors half of the photos, "crop" also cuts out
    a part of each.
    """

    epochs: int = 20
    batch_size: int = 4
    accumulate: int = 4
    lr: float = 1e-4
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: float = 0.02
    clip: float = 0.0
    ema: float = 0.0
    weight: float = 0.5
    weight_epochs: int = 10
    weighting: Weighting = "paper"
    repair_qkv: bool = True
    mask_padding: Padding = "all"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_blocks: bool = True
    cache_bytes: int = 8 * 2**30
    augment: Augment = "none"

    def check(self) -> list[str]:
        """Return what is wrong with the values, a sentence each."""
        mistakes = []
        for name in ("epochs", "batch_size", "accumulate", "lr"):
            if not getattr(self, name) > 0:
                mistakes.append(f"{name}: expected a number above 0; got {getattr(self, name)}")
        for name in ("weight_decay", "clip", "weight_epochs", "cache_bytes"):
            if not getattr(self, name) >= 0:
                mistakes.append(f"{name}: expected 0 or more; got {getattr(self, name)}")
        for name in ("ema", "weight", "warmup"):
            if not 0.0 <= getattr(self, name) < 1.0:
                mistakes.append(f"{name}: expected a number from 0 to below 1; got {getattr(self, name)}")
        if self.weight_decay and self.optimiser == "adam":
            mistakes.append('weight_decay: expected 0 with adam; got a number: use optimiser "adamw"')
        return mistakes
