"""Published faults come back alone: positions to zero, the temperature to that of the narrower heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aerogel.slim import apply_plan, mask_channels
from aerogel.slim.faults import change_temperature_, forget_positions_, forget_weights_
from tests.unit.slim.tiny import apart, build, draw_plan, embed


def test_positions_are_forgotten_and_nothing_else() -> None:
    model = build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    forget_positions_(model)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert len(changed) == 6 and all("rel_pos" in name for name in changed)
    assert all(not dict(model.named_parameters())[name].any() for name in changed)


def test_the_temperature_is_that_of_the_narrower_heads() -> None:
    model = build()
    plan = draw_plan(model, {"head_dims": 3})
    slim = apply_plan(model, plan)
    with mask_channels(model, plan):
        whole = embed(model)
    assert apart(embed(slim), whole) < 1e-12
    keys = slim.vision_encoder.layers[0].attn.qkv.weight.detach()[12:24].clone()
    change_temperature_(slim, plan)
    assert torch.allclose(slim.vision_encoder.layers[0].attn.qkv.weight[12:24], keys * 2**0.5)
    assert apart(embed(slim), whole) > 1e-3


def test_whole_heads_keep_their_temperature() -> None:
    model = build()
    slim = apply_plan(model, draw_plan(model, {"heads": 2}))
    before = embed(slim)
    change_temperature_(slim, draw_plan(model, {"heads": 2}))
    assert torch.equal(embed(slim), before)


@pytest.mark.parametrize("alone", [False, True])
def test_the_encoders_weights_are_drawn_anew_by_the_seed_and_nothing_else_is(alone: bool) -> None:
    def forget(seed: int) -> tuple[nn.Module, dict[str, Tensor]]:
        model = build(dtype=torch.float32)
        forget_weights_(model.vision_encoder if alone else model, seed)
        return model, {name: each.detach().clone() for name, each in model.named_parameters()}

    before = dict(build(dtype=torch.float32).named_parameters())
    (_, one), (_, same), (_, other) = forget(1), forget(1), forget(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    kept = {name for name in one if torch.equal(one[name], before[name])}
    # What gives the embedding's channels their sizes stays.
    last = "vision_encoder.neck.layer_norm2."
    assert kept == {name for name in one if not name.startswith("vision_encoder.") or name.startswith(last)}
    assert "vision_encoder.pos_embed" in drawn and "vision_encoder.layers.0.attn.qkv.weight" in drawn
    assert float(one["vision_encoder.pos_embed"].std()) == pytest.approx(0.02, rel=0.2)
    assert all(not one[name].any() for name in one if "rel_pos" in name)
    assert torch.equal(one["vision_encoder.layers.0.layer_norm1.weight"], torch.ones(24))


def test_forgetting_leaves_torchs_random_state() -> None:
    model = build()
    state = torch.random.get_rng_state()
    forget_weights_(model, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
