"""Ask a promptable segmenter for masks: one encoding of a photo for all its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aerogel.errors import DataError, compose
from aerogel.slim.canvas import Canvas, Placement
from aerogel.slim.families.fused import fusing
from aerogel.slim.prompts import PromptKind


@dataclass(frozen=True)
class Segmenter:
    """Wrap a model with the surface of transformers' SamModel or SamHQModel.

    It has ``get_image_embeddings(pixel_values)``, and called with ``image_embeddings``, ``input_points`` or
    ``input_boxes`` and ``multimask_output`` it returns ``pred_masks``: logits [1, prompts, masks, h, w].
    """

    model: Any
    canvas: Canvas

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        first = self._first_parameter()
        return torch.device("cpu") if first is None else first.device

    def encode(self, image: NDArray[np.uint8]) -> EncodedPhoto:
        """Run the image encoder on a photo uint8 [H, W, 3], once.

        Raises:
            DataError: not such a photo.
        """
        pixels, placement = self.canvas.place(image)
        first = self._first_parameter()
        if first is not None:
            pixels = pixels.to(device=first.device, dtype=first.dtype)
        with torch.no_grad(), evaluating(self.model), fusing(self.model):
            found = self.model.get_image_embeddings(pixels)
        if isinstance(found, Tensor):
            return EncodedPhoto(self, placement, {"image_embeddings": found})
        # SAM-HQ's decoder also sees what the global blocks gave.
        given = {"image_embeddings": found[0], "intermediate_embeddings": found[1]}
        return EncodedPhoto(self, placement, given)

    def _first_parameter(self) -> Tensor | None:
        parameters = getattr(self.model, "parameters", None)
        return None if parameters is None else next(iter(parameters()), None)


@dataclass(frozen=True)
class EncodedPhoto:
    """A photo that was encoded, ready for any number of prompts."""

    segmenter: Segmenter
    placement: Placement
    embeddings: dict[str, Any]

    def segment(self, kind: PromptKind, prompts: NDArray[np.float64], *, threshold: float = 0.0) -> Tensor:
        """Decode one mask for each prompt: boolean [N, H, W] in the photo's size, on the model's device.

        ``prompts`` are points [N, 2] or, for the kind "box", boxes [N, 4], in the photo's pixels. The model
        answers with its single mask (multimask_output=False), as in the published protocol.

        Raises:
            DataError: masks of another number or rank, or not numbers.
        """
        device = self.segmenter.device
        placed = torch.from_numpy(self.placement.move_points(prompts)).float().to(device)
        given = {"input_boxes": placed[None]} if kind == "box" else {"input_points": placed[None, :, None]}
        with torch.no_grad(), evaluating(self.segmenter.model):
            logits = self.segmenter.model(**self.embeddings, **given, multimask_output=False).pred_masks
        if logits.ndim != 5 or logits.shape[:3] != (1, len(prompts), 1):
            remedy = "pass a model with the surface of transformers' SamModel"
            expected = f"pred_masks [1, {len(prompts)}, 1, h, w]"
            raise DataError(compose(expected, str(list(logits.shape)), remedy))
        if torch.isnan(logits).any():
            raise DataError(compose("mask logits that are numbers", "NaN", "check the model's weights"))
        large = self.placement.restore_masks(logits[0, :, 0].float(), self.segmenter.canvas.size_px)
        return large > threshold


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch a model to evaluation for a block, and give each module its own mode back at the end."""
    modules: Sequence[Any] = list(model.modules()) if hasattr(model, "modules") else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
