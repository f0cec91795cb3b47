"""Tiny SAMs with weights that matter, and plans for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel

from aerogel.core.config import validate
from aerogel.slim.families import describe
from aerogel.slim.plan import Layout, Plan, find_stock_faults

SIDE = 64
# Four by four tokens in windows of three, so that windows are padded.
VISION = {
    "hidden_size": 24,
    "output_channels": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 16,
    "window_size": 3,
    "global_attn_indexes": [1],
    "num_pos_feats": 16,
    "mlp_dim": 40,
}
_CLASSES = {"sam": (SamModel, SamConfig), "sam_hq": (SamHQModel, SamHQConfig)}


def build(
    family: str = "sam",
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    attention: str = "sdpa",
    **vision: Any,
) -> Any:
    """Return a tiny model, every parameter drawn from N(0, 0.3²).

    At transformers' own initialisation outputs are nearly zero, and anything would equal anything. Its eager
    attention takes the softmax in float32 whatever the model's type.
    """
    model_class, config_class = _CLASSES[family]
    vision = {**VISION, **vision}
    decoder = {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2}
    if family == "sam_hq":
        decoder["vit_dim"] = vision["hidden_size"]
    config = config_class(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config=decoder,
    )
    config._attn_implementation = attention
    return fill_(model_class(config), seed).to(dtype).eval()


def fill_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def pixels(dtype: torch.dtype = torch.float64, count: int = 2) -> Tensor:
    """Return images as a model takes them."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)


def embed(model: Any, images: Tensor | None = None) -> Tensor:
    """Return the encoder's output."""
    encoder = getattr(model, "vision_encoder", model)
    images = pixels(next(model.parameters()).dtype) if images is None else images
    with torch.no_grad():
        found: Tensor = encoder(images).last_hidden_state
    return found


def segment(model: Any) -> Tensor:
    """Return the masks of a whole model for one point in each image."""
    dtype = next(model.parameters()).dtype
    points = torch.tensor([[[[20.0, 30.0]]], [[[40.0, 12.0]]]], dtype=dtype)
    labels = torch.ones(2, 1, 1, dtype=torch.long)
    with torch.no_grad():
        found: Tensor = model(pixels(dtype), input_points=points, input_labels=labels).pred_masks
    return found


def apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, in units of the first's largest value."""
    return float((one - other).abs().max() / one.abs().max())


def draw_plan(
    model: nn.Module, widths: Mapping[str, int], *, seed: int = 0, layout: Layout | None = None
) -> Plan:
    """Return a plan that keeps random channels; ``widths`` are by kind or by group, whole where missing."""
    generator = np.random.default_rng(seed)
    channels = describe(model)
    kept = {}
    for group in channels.groups:
        width = widths.get(group.name, widths.get(group.kind, group.size))
        kept[group.name] = tuple(sorted(generator.choice(group.size, width, replace=False).tolist()))
    counts = {name: len(indices) for name, indices in kept.items()}
    chosen: Layout = layout or ("flex" if find_stock_faults(counts) else "stock")
    return validate(Plan(channels.family, chosen, channels.sizes, kept))
