"""Small photos, and lessons for the tiny SAMs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aerogel.slim.alignment import AlignState, align
from aerogel.slim.config import AlignConfig, MasksConfig
from aerogel.slim.lesson import Lesson, Phase
from aerogel.slim.surgery import apply_plan
from aerogel.zoo.photos import Photo
from tests.unit.slim.tiny import build, draw_plan

PHASES: tuple[Phase, ...] = ("bottleneck", "embedding", "output", "masks")
CONFIG = AlignConfig(epochs=3, batch_size=2, accumulate=1, lr=1e-3, weight_epochs=2, warmup=0.0)
MASKS = MasksConfig(epochs=3, lr=1e-3, decoder_lr=2e-3, points=2, several=0.5)


@dataclass
class Pictures:
    """Photos in memory, drawn by number, of different sizes."""

    count: int = 5
    seed: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"{index}.png" for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Photo:
        generator = np.random.default_rng([self.seed, index])
        height, width = 40 + 9 * (index % 3), 64 - 11 * (index % 2)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        image = coarse.repeat(14, 0).repeat(14, 1)[:height, :width]
        return Photo(self.ids[index], np.ascontiguousarray(image))


def make(
    phase: Phase, family: str = "sam", dtype: torch.dtype = torch.float64, **widths: int
) -> tuple[Any, Lesson]:
    """Return a pruned student, and its lesson."""
    teacher = build(family, dtype=dtype)
    before = apply_plan(teacher, draw_plan(teacher, {"embedding": 16}))
    if phase == "masks":
        return before, Lesson(phase, teacher, masks=MASKS)
    if phase != "embedding":
        return before, Lesson(phase, teacher)
    kept = widths or {"head_dims": 3, "mlp": 20}
    return apply_plan(before, draw_plan(before, kept)), Lesson(phase, teacher, before)


def run(
    made: tuple[Any, Lesson],
    work: Path,
    config: AlignConfig = CONFIG,
    *,
    photos: Any = None,
    stop: int | None = None,
    seed: int = 0,
    **rest: Any,
) -> list[AlignState]:
    """Align, abandoned after ``stop`` steps; return the states."""
    student, lesson = made
    given = Pictures() if photos is None else photos
    states = []
    loop = align(student, lesson, given, config, seed=seed, device="cpu", work=work, **rest)
    for state in loop:
        states.append(state)
        if len(states) == stop:
            break
    loop.close()  # type: ignore[attr-defined]
    return states


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of a model's parameters."""
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def losses(states: Sequence[AlignState]) -> dict[int, tuple[float, dict[str, float]]]:
    """Return loss and terms by step."""
    return {state.step: (state.loss, dict(state.terms)) for state in states}
