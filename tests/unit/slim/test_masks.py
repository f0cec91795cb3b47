"""Masking hides channels from all who read, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aerogel.errors import MismatchError
from aerogel.slim import describe, identity_plan, mask_channels
from tests.unit.slim.tiny import build, draw_plan, embed, segment


def spoil_(model: nn.Module, name: str, gone: list[int]) -> None:
    """Change all that belongs to channels of a simple group."""
    group = next(each for each in describe(model).groups if each.name == name)
    with torch.no_grad():
        for axis in group.axes:
            model.get_parameter(axis.parameter).index_fill_(axis.dim, torch.tensor(gone), 7.0)


@pytest.mark.parametrize("name", ["embedding", "blocks.0.mlp"])
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_what_is_masked_does_not_matter(family: str, name: str) -> None:
    model = build(family)
    plan = draw_plan(model, {"embedding": 13, "mlp": 11})
    with mask_channels(model, plan):
        before = embed(model), segment(model)
        spoil_(model, name, sorted(set(range(plan.sizes[name])).difference(plan.kept[name])))
        after = embed(model), segment(model)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def test_a_norm_takes_its_statistics_over_what_stays() -> None:
    model = build()
    plan = draw_plan(model, {"embedding": 13})
    norm = model.vision_encoder.layers[0].layer_norm1
    states = torch.randn(2, 5, 24, dtype=torch.float64)
    kept = list(plan.kept["embedding"])
    with mask_channels(model, plan), torch.no_grad():
        found = norm(states)
    part = states[..., kept]
    spread = (part.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    wanted = (part - part.mean(-1, keepdim=True)) / spread * norm.weight[kept] + norm.bias[kept]
    assert torch.allclose(found[..., kept], wanted, atol=1e-12)
    assert found[..., sorted(set(range(24)).difference(kept))].abs().max() == 0


def test_nothing_masked_is_nothing_changed() -> None:
    model = build()
    before = embed(model)
    with mask_channels(model, identity_plan(describe(model))):
        assert torch.equal(embed(model), before)
    with pytest.raises(RuntimeError, match="mine"), mask_channels(model, draw_plan(model, {"mlp": 3})):
        raise RuntimeError("mine")
    assert torch.equal(embed(model), before)


def test_gradients_pass_through_masks() -> None:
    model = build()
    with mask_channels(model, draw_plan(model, {"embedding": 13, "head_dims": 2})):
        model.vision_encoder(torch.ones(1, 3, 64, 64, dtype=torch.float64)).last_hidden_state.sum().backward()
    gradient = model.vision_encoder.layers[2].layer_norm2.weight.grad
    assert int((gradient != 0).sum()) == 13


def test_a_plan_for_another_model_is_refused() -> None:
    model = build()
    plan = draw_plan(build(mlp_dim=20), {"mlp": 3})
    with pytest.raises(MismatchError, match="the widths that the plan is for"), mask_channels(model, plan):
        pass
