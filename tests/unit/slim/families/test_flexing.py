"""Blocks of different widths are built out of stock ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aerogel.errors import ConfigError
from aerogel.slim.families.flex_sam import FlexSamConfig, FlexSamVisionConfig
from aerogel.slim.families.flexing import narrow, narrow_whole, take_config_, widen_blocks_
from tests.unit.slim.tiny import VISION, build

WIDTHS: dict[str, Any] = {
    "heads_per_block": [4, 1, 2],
    "head_dim_per_block": [6, 3, 5],
    "mlp_dim_per_block": [40, 7, 20],
}


def config(**changes: Any) -> Any:
    return FlexSamVisionConfig(**{**VISION, **WIDTHS, **changes})


def test_a_narrow_copy_leaves_the_config_alone() -> None:
    given = config()
    slender = narrow(given)
    assert (slender.num_attention_heads, slender.mlp_dim, slender.num_hidden_layers) == (1, 1, 3)
    assert (given.num_attention_heads, given.mlp_dim) == (4, 40)
    assert narrow(given, blocks=0).num_hidden_layers == 0
    whole = FlexSamConfig(vision_config=given)
    assert narrow_whole(whole).vision_config.num_hidden_layers == 0
    assert whole.vision_config.num_hidden_layers == 3
    assert narrow_whole(whole).mask_decoder_config is whole.mask_decoder_config


@pytest.mark.parametrize(
    "changes", [{"heads_per_block": None}, {"mlp_dim_per_block": [4]}, {"head_dim_per_block": [1, 0, 1]}]
)
def test_widths_must_be_there_for_each_block(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="each of 3 numbers above 0"):
        narrow(config(**changes))


def test_blocks_are_widened() -> None:
    encoder = build(dtype=torch.float32).vision_encoder
    given = config()
    widen_blocks_(encoder, given)
    attention = encoder.layers[2].attn
    assert attention.qkv.weight.shape == (30, 24) and attention.proj.weight.shape == (24, 10)
    assert attention.rel_pos_h.shape == (5, 5) and attention.scale == 5**-0.5
    assert encoder.layers[1].mlp.lin2.weight.shape == (24, 7)
    assert encoder.config is encoder.neck.config is given


def test_a_config_is_taken_with_the_attention_that_was_chosen() -> None:
    model, given = build(attention="eager").vision_encoder, config()
    take_config_(model, given)
    assert model.config is given and given._attn_implementation == "eager"
