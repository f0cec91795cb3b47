"""Masks as targets of the zoo's small SAM: smaller ones, their boxes, and how far a student is from them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MASK_PX = 128


def shrink(masks: Tensor) -> Tensor:
    """Return masks [..., 256, 256] as the shares of ones in [..., 128, 128]."""
    return functional.avg_pool2d(masks.float().flatten(0, -3)[:, None], 2).view(
        *masks.shape[:-2], MASK_PX, MASK_PX
    )


def bound(masks: Tensor, image_px: int) -> Tensor:
    """Return the boxes [N, 4] of masks [N, 256, 256], in the pixels of a square of ``image_px``."""
    boxes = []
    for mask in masks:
        rows, columns = (mask.any(dim).nonzero()[:, 0] for dim in (1, 0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(boxes, dtype=torch.float32) * (image_px / masks.shape[-1])


def mask_loss(logits: Tensor, target: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropy plus dice loss [B, P] of logits [B, P, s, s], and the masks' actual IoU."""
    large = functional.interpolate(logits, (MASK_PX, MASK_PX), mode="bilinear", align_corners=False)
    area = inside.sum((-1, -2))
    entropy = functional.binary_cross_entropy_with_logits(large, target, reduction="none")
    entropy = (entropy * inside).sum((-1, -2)) / area
    chance = large.sigmoid() * inside
    both = (chance * target).sum((-1, -2))
    dice = 1 - (2 * both + 1) / (chance.sum((-1, -2)) + target.sum((-1, -2)) + 1)
    with torch.no_grad():
        found, there = (large > 0) & inside, target > 0.5
        union = (found | there).sum((-1, -2))
        overlap = (found & there).sum((-1, -2)) / union.clamp(min=1)
    return 2 * entropy + dice, overlap
