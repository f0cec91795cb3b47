"""What SAM's family does to configs, modules and classes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import SamConfig, SamModel, SamVisionConfig

from aerogel.errors import MismatchError
from aerogel.slim import apply_plan, to_stock
from aerogel.slim.families.flex_sam import FlexSamConfig, FlexSamVisionConfig
from aerogel.slim.families.sam import SAM
from aerogel.slim.families.sam_hq import SAM_HQ
from tests.unit.slim.tiny import build, draw_plan, embed

FLEX = {"embedding": 20, "blocks.0.mlp": 7, "blocks.2.heads": 1}


def test_it_owns_its_classes_only() -> None:
    sam, hq = build(), build("sam_hq")
    assert (
        SAM.owns(sam) and SAM.owns(sam.vision_encoder) and not SAM.owns(hq) and not SAM.owns(sam.mask_decoder)
    )
    assert SAM_HQ.owns(hq) and not SAM_HQ.owns(sam)


def test_stock_configs_say_the_new_widths_and_nothing_else_changes() -> None:
    model = build(use_abs_pos=False, hidden_act="relu")
    before = model.config.to_dict()
    cut = apply_plan(model, draw_plan(model, {"embedding": 12, "head_dims": 3, "mlp": 16}))
    after = cut.config.to_dict()
    changed = {key for key, value in after["vision_config"].items() if value != before["vision_config"][key]}
    assert changed == {"hidden_size", "mlp_dim", "scale"}
    assert type(cut.config) is SamConfig and type(cut.config.vision_config) is SamVisionConfig
    assert {k: v for k, v in after.items() if k != "vision_config"} == {
        k: v for k, v in before.items() if k != "vision_config"
    }


def test_flex_configs_say_the_widths_of_each_block() -> None:
    model = build(hidden_act="relu")
    cut: Any = apply_plan(model, draw_plan(model, FLEX))
    vision = cut.config.vision_config
    assert type(cut.config) is FlexSamConfig and type(vision) is FlexSamVisionConfig
    assert (vision.heads_per_block, vision.head_dim_per_block) == ([4, 4, 1], [6, 6, 6])
    assert (vision.mlp_dim_per_block, vision.mlp_dim, vision.hidden_size) == ([7, 40, 40], 40, 20)
    assert vision.hidden_act == "relu" and vision.global_attn_indexes == [1]
    assert cut.config._attn_implementation == vision._attn_implementation == "sdpa"


def test_every_part_holds_the_new_config() -> None:
    model = build()
    cut: Any = apply_plan(model, draw_plan(model, FLEX))
    stock: Any = to_stock(apply_plan(cut, draw_plan(cut, {"head_dims": 2, "heads": 1})))
    for each in (cut, stock):
        assert each.vision_encoder.config is each.vision_encoder.neck.config is each.config.vision_config
        decoder = each.mask_decoder.transformer.layers[0].self_attn
        assert decoder.config is each.config.mask_decoder_config
    assert type(stock) is SamModel and type(stock.config) is SamConfig


def test_a_cut_model_is_cut_again_and_copied() -> None:
    model = build()
    cut = apply_plan(model, draw_plan(model, FLEX))
    again: Any = apply_plan(cut, draw_plan(cut, {"blocks.0.mlp": 3}))
    assert again.config.vision_config.mlp_dim_per_block == [3, 40, 40]
    assert (embed(copy.deepcopy(again)) == embed(again)).all()


def test_the_decoder_of_sam_hq_follows_the_embedding() -> None:
    model = build("sam_hq")
    cut: Any = apply_plan(model, draw_plan(model, FLEX))
    assert cut.config.mask_decoder_config.vit_dim == 20
    assert cut.mask_decoder.compress_vit_conv1.weight.shape[0] == 20
    assert model.config.mask_decoder_config.vit_dim == 24


def test_classes_of_others_are_not_made_flexible() -> None:
    model = build()
    model.vision_encoder.__class__ = type("Tuned", (type(model.vision_encoder),), {})
    with pytest.raises(MismatchError, match="Tuned"):
        SAM.require_layout(model, "flex")
    SAM.require_layout(model, "stock")
