"""What a student answers to prompts, held against its teacher's answers: masks and scores, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from aerogel.core.randomness import uniforms
from aerogel.measure.masks import find_boxes
from aerogel.slim.config import MasksConfig
from aerogel.slim.features import Features

# Masks of less than this share of the photo are not looked for any harder.
_SMALL = 0.003
# What the divergence of pixels' probabilities weighs beside the distance of whole masks.
_DIVERGENCE = 0.5
# How far a side of a box may lie from the mask's, as a share of the box's width or height.
_LOOSE = 0.03


@dataclass(frozen=True)
class Asked:
    """Hold what may be asked about B views: points ``places`` [B, C, 2] on the canvas, x before y.

    Of these P are chosen by their ``chances`` [B, C] in [0, 1) and the masks that the teacher gives for them.
    ``loosened`` [B, P, 4] moves the sides of boxes, in shares of their size. ``several`` names the views
    whose points are answered with all guesses, ``single`` those with one mask, which are asked for boxes too.
    """

    places: Tensor
    chances: Tensor
    loosened: Tensor
    single: Tensor
    several: Tensor


def draw_prompts(seeds: Sequence[int], scaled: Sequence[tuple[int, int]], config: MasksConfig) -> Asked:
    """Draw what views may be asked, by one seed each; ``scaled`` are their (height, width) on the canvas."""

    def draw(stream: str, count: int) -> Tensor:
        one = np.zeros(1, dtype=np.int64)
        rows = [uniforms(seed, stream, 0, one, count)[0] for seed in seeds]
        return torch.from_numpy(np.stack(rows)).float()

    count = config.points * config.candidates
    sides = torch.tensor([(wide, tall) for tall, wide in scaled], dtype=torch.float32)
    several = draw("kind", 1)[:, 0] < config.several
    return Asked(
        draw("places", 2 * count).unflatten(1, (count, 2)) * sides[:, None],
        draw("chances", count),
        (2.0 * draw("boxes", 4 * config.points).unflatten(1, (config.points, 4)) - 1.0) * _LOOSE,
        (~several).nonzero()[:, 0],
        several.nonzero()[:, 0],
    )


def choose_points(shares: Tensor, chances: Tensor, count: int) -> Tensor:
    """Return the numbers [B, count] of points whose masks take ``shares`` [B, C] of the photo.

    They are drawn without replacement, by ``chances`` in [0, 1), each as likely as its mask is small: a
    region that many points fall on is asked about as often as one that few do (Efraimidis and Spirakis,
    "Weighted random sampling with a reservoir", 2006).
    """
    keys = chances.clamp_min(1e-30).log() * shares.clamp_min(_SMALL)
    return keys.topk(count, dim=1).indices


@dataclass(frozen=True)
class _Known:
    """Hold what the teacher says: points [B, P, 2], logits [B, P, 1, h, w] and scores [B, P, 1]."""

    points: Tensor
    masks: Tensor
    scores: Tensor

    def prompts(self, rows: Tensor) -> dict[str, Tensor]:
        return {"input_points": self.points[rows][:, :, None]}


@dataclass(frozen=True)
class Sides:
    """Hold student and teacher with what their encoders gave of the same B views."""

    student: Any
    ours: Features
    teacher: Any
    theirs: Features

    def compare(self, asked: Asked, inside: Tensor, canvas_px: int) -> dict[str, Tensor]:
        """Return the errors of the student's "masks" and of its "scores", each the mean over views.

        A mask's error is `mask_error`'s, a score's is squared. Each view counts alike: its error is the mean
        over what it is asked. ``inside`` [B, h, w] tells the pixels of masks that lie on the photo. Prompts
        that the teacher answers with a mask of no pixel make no box.
        """
        known = self._choose(asked, inside)
        parts = []
        if len(asked.single):
            parts.append(self._judge_single(asked, known, inside, canvas_px))
        if len(asked.several):
            prompts = known.prompts(asked.several)
            error, off = self._judge(asked.several, prompts, inside, several=True)
            parts.append((error.flatten(1).mean(1), off.flatten(1).mean(1)))
        masks, scores = (torch.cat(each).sum() / len(inside) for each in zip(*parts, strict=True))
        return {"masks": masks, "scores": scores}

    def _choose(self, asked: Asked, inside: Tensor) -> _Known:
        """Ask the teacher at all places; return those that are chosen."""
        every, device = torch.arange(len(inside)), inside.device
        places = asked.places.to(device)
        with torch.no_grad():
            masks, scores = answer(
                self.teacher, self.theirs, every, {"input_points": places[:, :, None]}, several=False
            )
        shares = ((masks[:, :, 0] > 0) & inside[:, None]).sum((-1, -2)) / inside.sum((-1, -2))[:, None]
        chosen = choose_points(shares, asked.chances.to(device), asked.loosened.shape[1])
        rows = every.to(device)[:, None]
        return _Known(places[rows, chosen], masks[rows, chosen], scores[rows, chosen])

    def _judge_single(
        self, asked: Asked, known: _Known, inside: Tensor, canvas_px: int
    ) -> tuple[Tensor, Tensor]:
        """Return the errors [views] of one mask for each point and of one for each box around it."""
        rows = asked.single
        masks = (known.masks[rows][:, :, 0] > 0) & inside[rows][:, None]
        boxes, some = bound(masks, asked.loosened[rows].to(inside.device), canvas_px)
        answers = known.masks[rows], known.scores[rows]
        by_points = self._judge(rows, known.prompts(rows), inside, several=False, known=answers)
        by_boxes = self._judge(rows, {"input_boxes": boxes}, inside, several=False)
        weight = torch.cat([torch.ones_like(some), some], 1)
        error, off = (
            (torch.cat(each, 1)[:, :, 0] * weight).sum(1) / weight.sum(1)
            for each in zip(by_points, by_boxes, strict=True)
        )
        return error, off

    def _judge(
        self,
        rows: Tensor,
        prompts: dict[str, Tensor],
        inside: Tensor,
        *,
        several: bool,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the errors of masks and scores, both [views, P, M]; ``known`` is what the teacher says."""
        if known is None:
            with torch.no_grad():
                known = answer(self.teacher, self.theirs, rows, prompts, several=several)
        ours = answer(self.student, self.ours, rows, prompts, several=several)
        return mask_error(ours[0], known[0], inside[rows]), (ours[1] - known[1]).square()


def answer(
    model: Any, features: Features, rows: Tensor, prompts: dict[str, Tensor], *, several: bool
) -> tuple[Tensor, Tensor]:
    """Return the logits [views, P, M, h, w] and scores [views, P, M] of a model for prompts on some views."""
    given: dict[str, Any] = {"image_embeddings": features.embedding[rows]}
    if features.intermediate:
        given["intermediate_embeddings"] = [each[rows] for each in features.intermediate]
    # Not the embedding's type, whose places are pixels apart where that is bfloat16.
    kind = next(model.prompt_encoder.parameters()).dtype
    found = model(
        **given, **{name: each.to(kind) for name, each in prompts.items()}, multimask_output=several
    )
    exact = torch.promote_types(found.pred_masks.dtype, torch.float32)
    return found.pred_masks.to(exact), found.iou_scores.to(exact)


def bound(masks: Tensor, loosened: Tensor, canvas_px: int) -> tuple[Tensor, Tensor]:
    """Return boxes [B, P, 4] on the canvas around masks [B, P, h, w], and which are some, 1 or 0: [B, P].

    Their sides are moved by shares ``loosened`` [B, P, 4] of their size. An empty mask gets the canvas.
    """
    there = masks.flatten(2).any(-1)
    found = find_boxes(masks.flatten(0, 1)).unflatten(0, masks.shape[:2])
    boxes = found.to(masks.device, loosened.dtype) * (canvas_px / masks.shape[-1])
    spans = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    whole = boxes.new_tensor([0.0, 0.0, canvas_px, canvas_px])
    boxes = torch.where(there[..., None], boxes + loosened * spans, whole).clamp(0.0, canvas_px)
    return boxes, there.to(boxes.dtype)


def mask_error(ours: Tensor, theirs: Tensor, inside: Tensor) -> Tensor:
    """Return how far logits [B, P, M, h, w] are from others on the pixels ``inside`` [B, h, w]: [B, P, M].

    The Jaccard distance of the pixels' probabilities 2 Σ |p - q| / Σ (p + q + |p - q|) (arXiv 2302.05666),
    plus their mean Kullback-Leibler divergence by `_DIVERGENCE`; zero for equal logits alone. With
    squares in place of |p - q| the smaller of two possible masks would weigh more.
    """
    there = inside[:, None, None]
    wanted = theirs.sigmoid()
    entropy = binary_cross_entropy_with_logits(theirs, wanted, reduction="none")
    cross = binary_cross_entropy_with_logits(ours, wanted, reduction="none")
    divergence = ((cross - entropy) * there).sum((-1, -2)) / there.sum((-1, -2))
    one, other = ours.sigmoid() * there, wanted * there
    apart = (one - other).abs().sum((-1, -2))
    distance = 2.0 * apart / ((one + other).sum((-1, -2)) + apart + 1.0)
    return _DIVERGENCE * divergence + distance


def mask_inside(scaled: Sequence[tuple[int, int]], side: int, canvas_px: int) -> Tensor:
    """Tell which pixels of masks of ``side`` lie on the photo: boolean [B, side, side].

    Their centres do; of a photo that is thinner than half a pixel the first row or column is taken.
    """
    centres = (torch.arange(side) + 0.5) * (canvas_px / side)
    sides = torch.tensor(scaled, dtype=centres.dtype).clamp(min=canvas_px / side)
    return (centres < sides[:, :1])[:, :, None] & (centres < sides[:, 1:])[:, None, :]
