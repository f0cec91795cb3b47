"""Cutting is exact: it equals masking, saves and loads as stock, and leaves everything else alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import SamHQModel, SamModel, SamVisionModel

from aerogel.errors import DataError, MismatchError
from aerogel.slim import apply_plan, apply_plan_, describe, identity_plan, mask_channels, surgery, to_stock
from aerogel.slim.families.flex_sam import FlexSamConfig, FlexSamModel, FlexSamVisionEncoder
from aerogel.slim.families.flex_sam_hq import FlexSamHQModel
from tests.unit.slim.tiny import apart, build, draw_plan, embed, pixels, segment

STOCK = {"embedding": 12, "head_dims": 3, "mlp": 16}
FLEX = {"blocks.0.head_dims": 2, "blocks.1.heads": 3, "blocks.2.head_dims": 5, "blocks.1.mlp": 7, "mlp": 20}
SHAPES: dict[str, dict[str, int]] = {
    "embedding": {"embedding": 13},
    "head_dims": {"head_dims": 2},
    "heads": {"heads": 3},
    "mlp": {"mlp": 11},
    "stock": STOCK,
    "fewer_heads": {"embedding": 12, "heads": 2, "head_dims": 6, "mlp": 16},
    "flex": FLEX,
    "one_of_each": {"embedding": 1, "heads": 1, "head_dims": 1, "mlp": 1},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_rel_pos": {"use_rel_pos": False},
    "no_abs_pos": {"use_abs_pos": False},
    "no_qkv_bias": {"qkv_bias": False},
    "global": {"global_attn_indexes": [0, 1, 2]},
    "windows": {"global_attn_indexes": []},
}


@pytest.mark.parametrize("widths", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_cut_equals_masked(family: str, widths: dict[str, int]) -> None:
    model = build(family)
    plan = draw_plan(model, widths)
    cut = apply_plan(model, plan)
    with mask_channels(model, plan):
        masked, masks = embed(model), segment(model)
    assert apart(masked, embed(cut)) < 1e-12
    assert apart(masks, segment(cut)) < 1e-12
    assert apart(embed(model), embed(cut)) > 1e-2


@st.composite
def drawn_widths(draw: st.DrawFn) -> dict[str, int]:
    most = {"heads": 4, "head_dims": 6, "mlp": 40}
    widths = {"embedding": draw(st.integers(1, 24))}
    for index in range(3):
        widths |= {f"blocks.{index}.{kind}": draw(st.integers(1, size)) for kind, size in most.items()}
    return widths


@settings(max_examples=15)
@given(drawn_widths(), st.integers(0, 9))
def test_any_plan_is_exact(widths: dict[str, int], seed: int) -> None:
    model = build()
    plan = draw_plan(model, widths, seed=seed)
    with mask_channels(model, plan):
        masked = embed(model)
    cut = apply_plan(model, plan)
    assert apart(masked, embed(cut)) < 1e-12
    assert describe(cut).sizes == plan.widths
    try:
        stock = to_stock(cut)
    except MismatchError:
        return
    assert apart(masked, embed(stock)) < 1e-12
    assert describe(stock).sizes["embedding"] == widths["embedding"]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_cut_equals_masked_at_any_config(variant: dict[str, Any]) -> None:
    model = build(**variant)
    plan = draw_plan(model, STOCK)
    with mask_channels(model, plan):
        masked = embed(model)
    assert apart(masked, embed(apply_plan(model, plan))) < 1e-12


def test_eager_attention_agrees_as_far_as_its_float32_goes() -> None:
    model = build(attention="eager")
    plan = draw_plan(model, STOCK)
    cut = apply_plan(model, plan)
    assert type(cut.vision_encoder.layers[0].attn).__name__ == "SamVisionAttention"
    with mask_channels(model, plan):
        assert apart(embed(model), embed(cut)) < 1e-5


def test_without_rescaled_keys_the_temperature_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    plan = draw_plan(model, {"head_dims": 2})
    with mask_channels(model, plan):
        masked = embed(model)
    monkeypatch.setattr(surgery, "_find_keys", lambda channels, widths: {})
    assert apart(masked, embed(apply_plan(model, plan))) > 1e-3


def test_zeros_under_a_plain_norm_are_no_mask() -> None:
    model = build()
    plan = draw_plan(model, {"embedding": 13})
    cut = embed(apply_plan(model, plan))
    gone = sorted(set(range(24)).difference(plan.kept["embedding"]))
    with torch.no_grad():
        for axis in describe(model).groups[0].axes:
            model.get_parameter(axis.parameter).index_fill_(axis.dim, torch.tensor(gone), 0.0)
    assert apart(embed(model), cut) > 1e-2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_ratio_zero_is_the_identity(attention: str) -> None:
    model = build(dtype=torch.float32, attention=attention)
    same = apply_plan(model, identity_plan(describe(model)))
    assert type(same) is SamModel
    assert torch.equal(embed(model), embed(same))
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), same.parameters(), strict=True)
    )


@pytest.mark.parametrize("first", ["embedding", "flex", "stock"])
def test_plans_compose(first: str) -> None:
    model = build("sam_hq")
    plan = draw_plan(model, SHAPES[first])
    once = apply_plan(model, plan)
    later = draw_plan(once, {"embedding": 8, "heads": 2, "head_dims": 2, "mlp": 6}, seed=1)
    twice, both = apply_plan(once, later), apply_plan(model, plan.then(later))
    assert {name: each.shape for name, each in twice.named_parameters()} == {
        name: each.shape for name, each in both.named_parameters()
    }
    assert apart(embed(twice), embed(both)) < 1e-12


def test_the_four_phases_end_in_a_stock_model() -> None:
    model = build()
    narrow = apply_plan(model, draw_plan(model, {"embedding": 12}))
    assert type(narrow) is FlexSamModel
    assert narrow.config.vision_config.head_dim_per_block == [6, 6, 6]
    apply_plan_(narrow, draw_plan(narrow, {"head_dims": 3, "mlp": 16}, seed=1))
    assert type(narrow) is SamModel
    assert narrow.config.vision_config.num_attention_heads == 4
    assert not hasattr(narrow.config.vision_config, "head_dim_per_block")


@pytest.mark.parametrize("kind", [SamModel, SamHQModel])
def test_stock_round_trip(kind: Any, tmp_path: Path) -> None:
    model = build("sam" if kind is SamModel else "sam_hq", dtype=torch.float32)
    cut = apply_plan(model, draw_plan(model, STOCK))
    cut.save_pretrained(tmp_path)
    loaded, info = kind.from_pretrained(tmp_path, attn_implementation="sdpa", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    vision = loaded.config.vision_config
    assert (vision.hidden_size, vision.mlp_dim, vision.num_attention_heads) == (12, 16, 4)
    assert torch.equal(segment(cut), segment(loaded))
    assert torch.equal(embed(cut), embed(loaded))


@pytest.mark.parametrize("kind", [FlexSamModel, FlexSamHQModel])
def test_flex_round_trip(kind: Any, tmp_path: Path) -> None:
    model = build("sam" if kind is FlexSamModel else "sam_hq", dtype=torch.float32)
    cut = apply_plan(model, draw_plan(model, FLEX))
    assert type(cut) is kind
    cut.save_pretrained(tmp_path)
    loaded, info = kind.from_pretrained(tmp_path, attn_implementation="sdpa", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert torch.equal(segment(cut), segment(loaded))
    assert describe(loaded).sizes == describe(cut).sizes


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_flex_becomes_stock_by_zeros(family: str, tmp_path: Path) -> None:
    cut = apply_plan(model := build(family), draw_plan(model, FLEX))
    stock = to_stock(cut)
    assert type(stock) is type(model)
    assert describe(stock).sizes["blocks.0.head_dims"] == 6
    assert {describe(stock).sizes[f"blocks.{index}.mlp"] for index in range(3)} == {20}
    assert apart(embed(cut), embed(stock)) < 1e-12
    stock.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sdpa", dtype="float64")
    assert torch.equal(embed(stock), embed(loaded))


def permute(model: Any, name: str, order: list[int]) -> None:
    """Renumber a group's channels: channel c becomes what channel order[c] was."""
    group = next(each for each in describe(model).groups if each.name == name)
    for axis in group.axes:
        parameter = model.get_parameter(axis.parameter)
        parameter.data = parameter.data.index_select(axis.dim, torch.tensor(order))


@pytest.mark.parametrize("name", ["embedding", "blocks.1.mlp"])
def test_the_numbering_of_channels_does_not_matter(name: str) -> None:
    model = build()
    plan = draw_plan(model, STOCK)
    cut = apply_plan(model, plan)
    order = torch.randperm(plan.sizes[name], generator=torch.Generator().manual_seed(3)).tolist()
    kept = tuple(index for index, old in enumerate(order) if old in plan.kept[name])
    permute(model, name, order)
    renumbered = replace(plan, kept={**plan.kept, name: kept})
    assert apart(embed(cut), embed(apply_plan(model, renumbered))) < 1e-12


def test_padding_changes_nothing_where_all_is_stock() -> None:
    cut = apply_plan(model := build(), draw_plan(model, STOCK))
    assert torch.equal(embed(cut), embed(to_stock(cut)))


def test_padding_needs_an_embedding_wide_enough() -> None:
    cut = apply_plan(model := build(), draw_plan(model, {"embedding": 12, "blocks.1.head_dims": 4}))
    with pytest.raises(MismatchError, match="fit an embedding of 12"):
        to_stock(cut)


def test_padded_heads_are_as_few_as_can_be() -> None:
    cut = apply_plan(model := build(), draw_plan(model, {"heads": 2, "head_dims": 5, "blocks.0.mlp": 3}))
    stock = to_stock(cut)
    assert stock.config.vision_config.num_attention_heads == 2
    assert describe(stock).sizes["blocks.0.head_dims"] == 12
    assert apart(embed(cut), embed(stock)) < 1e-12


def test_the_given_model_is_not_touched() -> None:
    model = build("sam_hq")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    config = model.config.to_dict()
    apply_plan(model, draw_plan(model, FLEX))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert model.config.to_dict() == config
    assert type(model) is SamHQModel


def test_in_place_equals_copying_and_keeps_parameters() -> None:
    model = build()
    plan = draw_plan(model, STOCK)
    copied = apply_plan(model, plan)
    weight = model.vision_encoder.layers[0].mlp.lin1.weight
    weight.grad = torch.ones_like(weight)
    shared = model.config
    assert apply_plan_(model, plan) is model
    assert torch.equal(embed(model), embed(copied))
    assert model.vision_encoder.layers[0].mlp.lin1.weight is weight
    assert weight.grad is None and weight.shape == (16, 12)
    assert shared.vision_config.hidden_size == 24, "other models may share the old config"
    assert model.vision_encoder.config is model.config.vision_config
    assert model.vision_encoder.neck.config is model.config.vision_config


@pytest.mark.parametrize("in_place", [False, True])
def test_dtype_and_gradients_stay(in_place: bool) -> None:
    model = build(dtype=torch.bfloat16)
    model.vision_encoder.requires_grad_(False)
    model.vision_encoder.neck.conv1.weight.requires_grad_(True)
    plan = draw_plan(model, STOCK)
    cut = apply_plan_(model, plan) if in_place else apply_plan(model, plan)
    assert {each.dtype for each in cut.parameters()} == {torch.bfloat16}
    assert [name for name, each in cut.vision_encoder.named_parameters() if each.requires_grad] == [
        "neck.conv1.weight"
    ]
    assert cut.mask_decoder.iou_token.weight.requires_grad


def test_a_model_without_memory_is_cut() -> None:
    model = build().to("meta")
    cut = apply_plan(model, draw_plan(model, STOCK))
    assert {each.device.type for each in cut.parameters()} == {"meta"}
    assert cut.vision_encoder.layers[0].attn.qkv.weight.shape == (36, 12)


def test_ties_stay_where_the_same_channels_do() -> None:
    model = build()
    layers = model.vision_encoder.layers
    layers[2].mlp.lin1.weight = layers[0].mlp.lin1.weight
    plan = draw_plan(model, {"embedding": 12})
    cut = apply_plan(model, plan)
    assert cut.vision_encoder.layers[2].mlp.lin1.weight is cut.vision_encoder.layers[0].mlp.lin1.weight
    assert layers[2].mlp.lin1.weight.shape == (40, 24)
    with pytest.raises(MismatchError, match=r"layers\.0\.mlp\.lin1\.weight and as .*layers\.2"):
        apply_plan(model, draw_plan(model, {"mlp": 16}))


def test_vision_models_and_bare_encoders_are_cut(tmp_path: Path) -> None:
    model = build(dtype=torch.float32)
    vision = SamVisionModel(model.config.vision_config).eval()
    vision.load_state_dict({f"vision_encoder.{k}": v for k, v in model.vision_encoder.state_dict().items()})
    encoder = apply_plan(model.vision_encoder, draw_plan(model.vision_encoder, FLEX))
    assert type(encoder) is FlexSamVisionEncoder
    cut = apply_plan(vision, draw_plan(vision, FLEX))
    assert torch.equal(embed(encoder), embed(cut))
    cut.save_pretrained(tmp_path)
    assert torch.equal(embed(type(cut).from_pretrained(tmp_path)), embed(cut))


def test_modules_say_what_their_weights_say() -> None:
    cut = apply_plan(model := build("sam_hq"), draw_plan(model, STOCK))
    encoder = cut.vision_encoder
    assert encoder.patch_embed.projection.out_channels == encoder.neck.conv1.in_channels == 12
    assert cut.mask_decoder.compress_vit_conv1.in_channels == cut.config.mask_decoder_config.vit_dim == 12
    attention = encoder.layers[0].attn
    assert (attention.qkv.in_features, attention.qkv.out_features) == (12, 36)
    assert attention.scale == 3**-0.5 and tuple(encoder.layers[0].layer_norm1.normalized_shape) == (12,)


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_hidden_states_are_recorded_whatever_the_class(family: str) -> None:
    model = build(family)
    cut = apply_plan(model, draw_plan(model, FLEX))
    for each in (model, cut, to_stock(cut)):
        states = each.vision_encoder(pixels(), output_hidden_states=True).hidden_states
        assert len(states) == 4


def test_cutting_draws_no_random_numbers() -> None:
    model = build()
    before = torch.get_rng_state()
    apply_plan(model, draw_plan(model, FLEX))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plan_for_another_model_is_refused() -> None:
    model, other = build(), build(mlp_dim=32)
    plan = draw_plan(other, {"mlp": 8})
    before = embed(model)
    with pytest.raises(MismatchError, match=r"40 channels in blocks\.0\.mlp, not 32"):
        apply_plan_(model, plan)
    with pytest.raises(MismatchError, match="family 'sam'"):
        apply_plan(build("sam_hq"), draw_plan(model, STOCK))
    assert torch.equal(embed(model), before)


def test_somebody_elses_class_stays_in_the_stock_layout() -> None:
    class Tuned(SamModel):
        pass

    model = build()
    model.__class__ = Tuned
    assert type(apply_plan(model, draw_plan(model, STOCK))) is Tuned
    with pytest.raises(MismatchError, match="Tuned, derived from it"):
        apply_plan(model, draw_plan(model, FLEX))


def test_what_is_no_sam_is_refused() -> None:
    with pytest.raises(DataError, match="SamHQModel"):
        describe(nn.Linear(3, 3))
    model = build()
    with pytest.raises(DataError, match="without a wrapper"):
        apply_plan(nn.Sequential(model), identity_plan(describe(model)))


def test_flex_configs_need_widths_for_each_block() -> None:
    with pytest.raises(ValueError, match="heads_per_block"):
        FlexSamModel(FlexSamConfig())
