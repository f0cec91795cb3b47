"""The encoder's channels, at every config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from aerogel.errors import MismatchError
from aerogel.slim.families import describe
from aerogel.slim.families.encoder import describe_encoder, read_widths
from tests.unit.slim.tiny import build

SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_dim": 4096},
    "huge": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120},
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"use_rel_pos": False},
    {"use_abs_pos": False},
    {"qkv_bias": False},
    {"use_rel_pos": False, "use_abs_pos": False, "qkv_bias": False},
    {"num_channels": 4, "patch_size": 8, "num_hidden_layers": 1, "global_attn_indexes": []},
    {"num_attention_heads": 1},
    {"num_attention_heads": 24},
]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_published_encoders(shape: dict[str, Any]) -> None:
    with torch.device("meta"):
        encoder = SamVisionEncoder(SamVisionConfig(**shape))
    sizes = describe(encoder).sizes
    last = shape.get("num_hidden_layers", 12) - 1
    heads = shape.get("num_attention_heads", 12)
    assert sizes["embedding"] == shape.get("hidden_size", 768)
    assert sizes[f"blocks.{last}.heads"] == heads
    assert sizes[f"blocks.{last}.head_dims"] * heads == sizes["embedding"]
    assert sizes[f"blocks.{last}.mlp"] == 4 * sizes["embedding"]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_any_config_is_covered(variant: dict[str, Any]) -> None:
    # describe() refuses an encoder with an axis in no group.
    channels = describe(build(**variant))
    names = {axis.parameter for group in channels.groups for axis in group.axes}
    assert any("rel_pos" in name for name in names) == variant.get("use_rel_pos", True)
    assert ("vision_encoder.pos_embed" in names) == variant.get("use_abs_pos", True)
    assert any("qkv.bias" in name for name in names) == variant.get("qkv_bias", True)


def test_relative_positions_follow_the_dimensions_of_all_heads() -> None:
    dims = describe(build()).of_kind("head_dims")[1]
    tables = [axis for axis in dims.axes if "rel_pos" in axis.parameter]
    assert [(axis.parameter.rpartition(".")[2], axis.dim, axis.repeats) for axis in tables] == [
        ("rel_pos_h", 1, 1),
        ("rel_pos_w", 1, 1),
    ]


def test_other_widths_give_the_description_of_another_encoder() -> None:
    wide, narrow = build(), build(hidden_size=16, mlp_dim=20)
    widths = read_widths(narrow.vision_encoder)
    described = describe_encoder("sam", wide.vision_encoder, "vision_encoder.", widths)
    assert described == describe(narrow)


def test_heads_must_divide_the_projection() -> None:
    model = build()
    model.vision_encoder.layers[1].attn.num_attention_heads = 5
    with pytest.raises(MismatchError, match="72 rows for 5 heads in block 1"):
        describe(model)
