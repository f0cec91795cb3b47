"""What a student is taught, by whom, and how far off it is on some photos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aerogel.errors import MismatchError, compose
from aerogel.slim.cache import TeacherCache
from aerogel.slim.config import AlignConfig, MasksConfig
from aerogel.slim.families.family import find_family
from aerogel.slim.features import Features, mask_tokens, observe
from aerogel.slim.losses import (
    Loss,
    bottleneck_loss,
    bottleneck_weight,
    embedding_loss,
    embedding_weight,
    mask_loss,
    output_loss,
)
from aerogel.slim.prompted import Sides, draw_prompts, mask_inside

Phase = Literal["bottleneck", "embedding", "output", "masks"]


@dataclass(frozen=True)
class Lesson:
    """Say what is aligned, and with whom.

    "bottleneck": with the ``teacher``'s bottlenecks and output, after the embedding was pruned. "embedding":
    with the residual stream and output of the model ``before`` its bottlenecks were pruned, and ever more
    with the first ``teacher``'s output. "output": with the ``teacher``'s output alone. "masks": with its
    answers to prompts, which ``masks`` sets, and its output.
    """

    phase: Phase
    teacher: nn.Module
    before: nn.Module | None = None
    masks: MasksConfig | None = None

    def __post_init__(self) -> None:
        """Check that the phase has the models that it needs.

        Raises:
            MismatchError: ``before`` or ``masks`` is missing, or of no use.
        """
        if (self.before is not None) != (self.phase == "embedding"):
            remedy = 'pass it for the phase "embedding" and for no other'
            got = f"{'none' if self.before is None else 'one'} in the phase {self.phase!r}"
            raise MismatchError(compose("a model from before for embedding aligning", got, remedy))
        if (self.masks is not None) != (self.phase == "masks"):
            remedy = 'pass them for the phase "masks" and for no other'
            got = f"{'none' if self.masks is None else 'some'} in the phase {self.phase!r}"
            raise MismatchError(compose("settings of masks for learning masks", got, remedy))

    def weigh(self, epoch: int, config: AlignConfig) -> float:
        """Return the weight of the features in an epoch, counted from 0."""
        if self.phase in ("output", "masks"):
            return 0.0
        falls = {"paper": self.phase == "embedding", "dynamic": True, "constant": False}[config.weighting]
        if falls:
            return embedding_weight(epoch, config.feature_epochs)
        return bottleneck_weight(epoch, config.feature_epochs, config.weight)


@dataclass(frozen=True)
class Shown:
    """Hold a view of a photo: pixels [1, 3, S, S], and (height, width) on the canvas.

    ``image`` is what was placed there; ``number`` counts views, those that are shown again first. ``seed``
    is that of what is asked about it.
    """

    number: int
    identifier: str
    image: NDArray[np.uint8]
    pixels: Tensor
    scaled: tuple[int, int]
    seed: int = 0


@dataclass(frozen=True)
class Tutor:
    """Runs student and teachers on the same photos, and compares them.

    ``half`` computes in bfloat16. Models are on the ``device`` already.
    """

    student: nn.Module
    lesson: Lesson
    config: AlignConfig
    cache: TeacherCache
    device: str
    half: bool = False

    def examine(self, epoch: int, batch: Sequence[Shown]) -> Loss:
        """Return the loss, with its graph, of the student on some photos, their mean.

        Raises:
            MismatchError: the student's features do not fit the teachers'.
        """
        weight, relative = self.lesson.weigh(epoch, self.config), self.config.relative
        pixels = torch.cat([each.pixels for each in batch]).to(self.device)
        real = self._mask(batch)
        bottlenecks = weight > 0 and self.lesson.phase == "bottleneck"
        residuals = weight > 0 and self.lesson.phase == "embedding"
        with self._autocast():
            # What decoders read beside the embedding is not stored.
            if bottlenecks or (self.lesson.phase == "masks" and self._reads_details):
                teacher = self._watch(self.lesson.teacher, pixels, bottlenecks=bottlenecks)
            else:
                teacher = self._recall(batch, pixels)
            before = None
            if residuals and self.lesson.before is not None:
                before = self._watch(self.lesson.before, pixels, residuals=True)
            with observe(self.student, residuals=residuals, bottlenecks=bottlenecks) as seen:
                student = seen.encode(_fit(pixels, self.student), real)
            if self.lesson.phase == "bottleneck":
                repaired = self.config.repair_qkv
                return bottleneck_loss(student, teacher, weight, repaired=repaired, relative=relative)
            if self.lesson.phase == "embedding":
                return embedding_loss(student, before, teacher, weight, relative=relative)
            output = output_loss(student, teacher, relative=relative)
            if self.lesson.masks is None:
                return output
            errors = self._ask(self.lesson.masks, batch, student, teacher)
            return mask_loss(errors, output, self.lesson.masks.output_weight)

    def _ask(
        self, config: MasksConfig, batch: Sequence[Shown], ours: Features, theirs: Features
    ) -> dict[str, Tensor]:
        """Return the errors of the student's answers to prompts about some views."""
        scaled, canvas = [each.scaled for each in batch], batch[0].pixels.shape[-1]
        asked = draw_prompts([each.seed for each in batch], scaled, config)
        # Decoders make four by four pixels of a token.
        inside = mask_inside(scaled, 4 * ours.embedding.shape[-1], canvas)
        sides = Sides(self.student, ours, self.lesson.teacher, theirs)
        return sides.compare(asked, inside.to(self.device), canvas)

    @property
    def _reads_details(self) -> bool:
        return find_family(self.student).locate(self.student).decoder is not None

    def _mask(self, batch: Sequence[Shown]) -> Tensor | None:
        if self.config.mask_padding == "none":
            return None
        sites = find_family(self.student).locate(self.student)
        grid = batch[0].pixels.shape[-1] // sites.patch_px
        real = mask_tokens([each.scaled for each in batch], grid, sites.patch_px)
        return real if self.config.mask_padding == "all" else torch.ones_like(real)

    def _watch(
        self, model: nn.Module, pixels: Tensor, *, residuals: bool = False, bottlenecks: bool = False
    ) -> Features:
        with torch.no_grad(), observe(model, residuals=residuals, bottlenecks=bottlenecks) as seen:
            return seen.encode(_fit(pixels, model))

    def _recall(self, batch: Sequence[Shown], pixels: Tensor) -> Features:
        """Return the teacher's outputs: of a batch at once where nothing can be cached.

        Else photo by photo, so that they do not depend on which are cached.
        """
        if not self.cache.count:
            return self._watch(self.lesson.teacher, pixels)
        found = []
        for each in batch:
            answer = partial(self._answer, each)
            found.append(self.cache.fetch(each.number, each.identifier, each.image, answer))
        kind = next(self.student.parameters()).dtype
        joined = {
            name: torch.stack([outputs[name].to(self.device, kind) for outputs in found]) for name in found[0]
        }
        return Features(joined["embedding"], joined.get("details"))

    def _answer(self, each: Shown) -> dict[str, Tensor]:
        found = self._watch(self.lesson.teacher, each.pixels)
        outputs = {"embedding": found.embedding[0]}
        return outputs if found.details is None else {**outputs, "details": found.details[0]}

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.half)


def _fit(pixels: Tensor, model: nn.Module) -> Tensor:
    first = next(model.parameters())
    return pixels.to(first.device, first.dtype)
