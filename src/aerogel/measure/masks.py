"""Measure how well masks cover each other: whole, and along their outlines."""

from __future__ import annotations

from math import hypot
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from aerogel.errors import ConfigError, DataError, compose

BOUNDARY_SHARE = 0.02
_PIXELS_AT_ONCE = 2**24


def mask_iou(masks: Any, reference: Any) -> Tensor:
    """Measure intersection over union of each mask with its reference; the result is float64 [N] on the CPU.

    ``masks`` and ``reference`` are boolean [N, H, W], or [H, W] for one; tensors on any device and arrays are
    taken. Two empty masks agree, which counts as 1; an empty one and one that is not share nothing: 0.

    Raises:
        DataError: masks that are not boolean, of another rank or of different shapes.
    """
    ours, theirs = _read_pair(masks, reference)
    return _share(ours, theirs)


def boundary_iou(masks: Any, reference: Any, *, share: float = BOUNDARY_SHARE) -> Tensor:
    """Measure intersection over union of the inner boundary bands; the result is float64 [N] on the CPU.

    Whole masks hide a poor outline behind a large inside; bands do not. ``masks`` and ``reference`` are as in
    :func:`mask_iou`, and so are empty masks; ``share`` is the band's width by the image's diagonal.
    Implements Cheng et al., "Boundary IoU", arXiv 2103.16562.

    Raises:
        DataError: as in :func:`mask_iou`.
        ConfigError: a share outside (0, 1).
    """
    ours, theirs = _read_pair(masks, reference)
    return _share(boundary_band(ours, share=share), boundary_band(theirs, share=share))


def boundary_band(masks: Any, *, share: float = BOUNDARY_SHARE) -> Tensor:
    """Keep of each mask the pixels near its border: boolean, in the masks' shape and on their device.

    A pixel stays when a pixel outside the mask, or outside the image, is at most the band's width away, rows
    and columns counted apart (a square neighbourhood). The width is ``share`` of the image's diagonal in
    whole pixels, at least one: the bands of arXiv 2103.16562, there by as many erosions with a 3 x 3 square.

    Raises:
        DataError: masks that are not boolean [N, H, W] or [H, W].
        ConfigError: a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ConfigError(compose("a share between 0 and 1", repr(share), "pass for example 0.02"))
    given = _read_masks(masks, "masks")
    height, width = given.shape[-2:]
    reach = max(1, round(share * hypot(height, width)))
    stack = given.reshape(-1, height, width)
    band = torch.empty_like(stack)
    step = max(1, _PIXELS_AT_ONCE // max(1, height * width))
    for start in range(0, len(stack), step):
        part = stack[start : start + step]
        inside = _shrink(_shrink(part, reach).transpose(1, 2), reach).transpose(1, 2)
        band[start : start + step] = part & ~inside
    return band.reshape(given.shape)


def find_boxes(masks: Any) -> Tensor:
    """Find the tight box of each mask: float64 [N, 4] on the CPU.

    x and y of the first pixel, then of the place behind the last: a mask of one pixel at the origin has the
    box (0, 0, 1, 1). An empty mask has a box of zeros.

    Raises:
        DataError: masks that are not boolean [N, H, W].
    """
    given = _read_masks(masks, "masks")
    stack = given if given.ndim == 3 else given[None]
    boxes = torch.zeros(len(stack), 4, dtype=torch.float64)
    for axis, first in ((1, 0), (2, 1)):
        touched = stack.any(dim=axis).cpu().to(torch.int8)
        if not touched.numel():
            continue
        some = touched.any(dim=1)
        boxes[:, first] = torch.where(some, touched.argmax(dim=1), 0).double()
        behind = touched.shape[1] - touched.flip(1).argmax(dim=1)
        boxes[:, first + 2] = torch.where(some, behind, 0).double()
    return boxes


def fill_boxes(boxes: Any, size: tuple[int, int]) -> Tensor:
    """Fill each box: boolean [N, H, W] of the pixels whose centre lies in it, the mask that needs no model.

    ``boxes`` are [N, 4], x and y of two corners in pixels, and ``size`` is (height, width).

    Raises:
        DataError: boxes of another shape or not finite.
    """
    corners = torch.as_tensor(np.asarray(boxes, dtype=np.float64))
    if corners.ndim != 2 or corners.shape[1] != 4 or not torch.isfinite(corners).all():
        raise DataError(
            compose("finite boxes [N, 4]", f"{list(corners.shape)}", "pass x1, y1, x2, y2 for each object")
        )
    height, width = size
    x = torch.arange(width, dtype=torch.float64) + 0.5
    y = torch.arange(height, dtype=torch.float64) + 0.5
    across = (x >= corners[:, 0:1]) & (x <= corners[:, 2:3])
    down = (y >= corners[:, 1:2]) & (y <= corners[:, 3:4])
    return down[:, :, None] & across[:, None, :]


def _shrink(masks: Tensor, reach: int) -> Tensor:
    """Keep pixels whose neighbours up to ``reach`` on either side of the last axis are all set."""
    side = 2 * reach + 1
    # Sums of a window as differences of one running sum: the cost does not grow with the reach.
    running = pad(masks, (reach + 1, reach)).cumsum(-1, dtype=torch.int32)
    return running[..., side:] - running[..., :-side] == side


def _share(ours: Tensor, theirs: Tensor) -> Tensor:
    common = (ours & theirs).flatten(1).sum(1).cpu().double()
    either = (ours | theirs).flatten(1).sum(1).cpu().double()
    return torch.where(either > 0, common / either.clamp(min=1), 1.0)


def _read_pair(masks: Any, reference: Any) -> tuple[Tensor, Tensor]:
    ours, theirs = _read_masks(masks, "masks"), _read_masks(reference, "reference masks")
    if ours.shape != theirs.shape:
        raise DataError(
            compose(
                "a reference of the same shape for each mask",
                f"{list(ours.shape)} and {list(theirs.shape)}",
                "bring both to the size of the image",
            )
        )
    return (ours, theirs.to(ours.device)) if ours.ndim == 3 else (ours[None], theirs[None].to(ours.device))


def _read_masks(masks: Any, what: str) -> Tensor:
    try:
        # A copy: torch takes no reversed arrays, and warns of read-only ones.
        given = masks if isinstance(masks, Tensor) else torch.from_numpy(np.array(masks))
    except (TypeError, ValueError) as error:
        raise DataError(
            compose(f"{what} as a tensor or an array", f"{type(masks).__name__}: {error}", "stack them")
        ) from error
    if given.dtype != torch.bool or given.ndim not in (2, 3):
        raise DataError(
            compose(
                f"boolean {what} [N, H, W] or [H, W]",
                f"{given.dtype} {list(given.shape)}",
                "compare logits with their threshold, or labels with a label",
            )
        )
    return given.detach()
