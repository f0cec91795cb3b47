"""Small stand-ins: a random SamModel, a model that knows the right masks, and photos of rectangles."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from aerogel.core.randomness import seed_torch
from aerogel.measure.masks import find_boxes
from aerogel.zoo.labelmaps import box_labels
from aerogel.zoo.objects import LabelMasks, SegmentedPhoto

IMAGE_PX = 64


def tiny_sam(seed: int = 0, family: str = "Sam", image_px: int = IMAGE_PX) -> Any:
    """Build a SamModel or SamHQModel of two narrow blocks, with weights large enough to give real masks."""
    import transformers

    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_px,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 32,
    }
    prompt = {
        "hidden_size": 16,
        "image_size": image_px,
        "patch_size": 16,
        "mask_input_channels": 4,
    }
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
        "num_hidden_layers": 2,
    }
    if family == "SamHQ":
        decoder["vit_dim"] = 16
    parts = {
        "vision_config": getattr(transformers, f"{family}VisionConfig")(**vision),
        "prompt_encoder_config": getattr(transformers, f"{family}PromptEncoderConfig")(**prompt),
        "mask_decoder_config": getattr(transformers, f"{family}MaskDecoderConfig")(**decoder),
    }
    with seed_torch(seed):
        model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**parts))
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    return model


def rectangles(seed: int = 0, count: int = 3, size: tuple[int, int] = (48, 64)) -> SegmentedPhoto:
    """Draw a photo of some rectangles, later ones over earlier ones, with its exact masks."""
    generator = np.random.default_rng(seed)
    height, width = size
    labels = np.zeros(size, dtype=np.int32)
    image = np.full((height, width, 3), 100, dtype=np.uint8)
    for label in range(1, count + 1):
        top, left = int(generator.integers(0, height - 12)), int(generator.integers(0, width - 12))
        tall, wide = int(generator.integers(8, 24)), int(generator.integers(8, 24))
        labels[top : top + tall, left : left + wide] = label
        image[labels == label] = generator.integers(0, 256, 3)
    found, boxes, areas = box_labels(labels)
    names = tuple(f"0:{label}" for label in found)
    source = LabelMasks((labels,), tuple((0, label) for label in found))
    return SegmentedPhoto(f"photo:{seed}", image, names, boxes, areas, None, source)


def one_mask(mask: np.ndarray, *, point: tuple[float, float] | None = None) -> SegmentedPhoto:
    """Make a grey photo of one object."""
    labels = mask.astype(np.int32)
    return SegmentedPhoto(
        "one",
        np.full((*mask.shape, 3), 128, dtype=np.uint8),
        ("0",),
        find_boxes(mask[None]).numpy(),
        np.array([mask.sum()]),
        None if point is None else np.array([point]),
        LabelMasks((labels,), ((0, 1),)),
    )


class Oracle:
    """Answers a prompt with the mask that ``answer`` gives for it, and counts what it is asked.

    Logits have the canvas's own resolution, so that photos of the canvas's size come back exactly.
    """

    def __init__(self, answer: Callable[[str, np.ndarray], np.ndarray], size_px: int = IMAGE_PX) -> None:
        self.config = SimpleNamespace(vision_config=SimpleNamespace(image_size=size_px))
        self.encoded = 0
        self.asked: list[tuple[str, int]] = []
        self._answer = answer
        self._size = size_px

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        assert pixel_values.shape == (1, 3, self._size, self._size)
        return torch.zeros(1, 1, 1, 1)

    def __call__(
        self,
        *,
        image_embeddings: torch.Tensor,
        multimask_output: bool,
        input_points: torch.Tensor | None = None,
        input_boxes: torch.Tensor | None = None,
    ) -> Any:
        assert multimask_output is False
        kind = "box" if input_points is None else "point"
        given = input_boxes[0] if input_points is None else input_points[0, :, 0]
        self.asked.append((kind, len(given)))
        masks = np.zeros((len(given), self._size, self._size), dtype=bool)
        for mask, prompt in zip(masks, given.numpy(), strict=True):
            part = self._answer(kind, prompt)
            mask[: part.shape[0], : part.shape[1]] = part
        logits = torch.from_numpy(np.where(masks, 1.0, -1.0)).float()
        return SimpleNamespace(pred_masks=logits[None, :, None])
