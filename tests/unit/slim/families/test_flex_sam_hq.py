"""The flexible classes build, save and load on their own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.errors import MissingDependencyError
from aerogel.slim import apply_plan, describe
from aerogel.slim.families.flex_sam_hq import (
    FlexSamHQConfig,
    FlexSamHQModel,
    FlexSamHQVisionConfig,
    FlexSamHQVisionEncoder,
    FlexSamHQVisionModel,
)
from tests.unit.slim.tiny import VISION, build, draw_plan, embed, fill_, segment

WIDTHS: dict[str, Any] = {
    "heads_per_block": [4, 1, 2],
    "head_dim_per_block": [6, 3, 5],
    "mlp_dim_per_block": [40, 7, 20],
}


def config(**vision: Any) -> FlexSamHQConfig:
    parts = build("sam_hq").config
    return FlexSamHQConfig(
        vision_config=FlexSamHQVisionConfig(**{**VISION, **WIDTHS, **vision}),
        prompt_encoder_config=parts.prompt_encoder_config,
        mask_decoder_config=parts.mask_decoder_config,
    )


def test_a_config_builds_the_widths_that_it_says() -> None:
    given = config()
    model = FlexSamHQModel(given).eval()
    assert model.config is given and model.vision_encoder.config is given.vision_config
    sizes = describe(model).sizes
    for index in range(3):
        found = [sizes[f"blocks.{index}.{kind}"] for kind in ("heads", "head_dims", "mlp")]
        assert found == [each[index] for each in WIDTHS.values()]
    assert sizes["embedding"] == 24


def test_configs_without_options_build_too() -> None:
    given = config(use_rel_pos=False, use_abs_pos=False, qkv_bias=False)
    model = fill_(FlexSamHQModel(given)).eval()
    assert model.vision_encoder.layers[0].attn.qkv.bias is None
    assert embed(model).isfinite().all()


def test_an_embedding_narrower_than_the_heads_builds() -> None:
    model = FlexSamHQVisionEncoder(config(hidden_size=2).vision_config)
    assert model.layers[0].attn.qkv.weight.shape == (72, 2)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loading_gives_the_attention_that_is_asked_for(attention: str, tmp_path: Path) -> None:
    fill_(FlexSamHQModel(config())).save_pretrained(tmp_path)
    loaded = FlexSamHQModel.from_pretrained(tmp_path, attn_implementation=attention)
    named = "SamHQVisionSdpaAttention" if attention == "sdpa" else "SamHQVisionAttention"
    assert {type(layer.attn).__name__ for layer in loaded.vision_encoder.layers} == {named}


def test_in_bfloat16_too(tmp_path: Path) -> None:
    cut: Any = apply_plan(
        model := build("sam_hq", dtype=torch.bfloat16), draw_plan(model, {"blocks.1.mlp": 5})
    )
    cut.save_pretrained(tmp_path)
    assert [each.suffix for each in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    loaded = FlexSamHQModel.from_pretrained(tmp_path, attn_implementation="sdpa", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(segment(loaded), segment(cut))


def test_vision_models_round_trip(tmp_path: Path) -> None:
    model = fill_(FlexSamHQVisionModel(config().vision_config)).eval()
    model.save_pretrained(tmp_path)
    loaded = FlexSamHQVisionModel.from_pretrained(tmp_path)
    assert torch.equal(embed(loaded), embed(model))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "aerogel.slim.families.flex_sam_hq"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers.models.sam_hq.configuration_sam_hq", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[slim\]"):
        importlib.import_module(name)
