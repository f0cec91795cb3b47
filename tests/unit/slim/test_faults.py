"""Published faults come back alone: positions to zero, the temperature to that of the narrower heads."""

from __future__ import annotations

import torch

from aerogel.slim import apply_plan, mask_channels
from aerogel.slim.faults import change_temperature_, forget_positions_
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
