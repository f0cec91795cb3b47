"""Blocks that are computed twice give the same gradients and keep less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.slim import apply_plan, describe
from aerogel.slim.recomputation import find_blocks, recompute_blocks
from tests.unit.slim.tiny import build, draw_plan, pixels


def gradients(model: Any) -> list[Tensor]:
    model.zero_grad()
    model.vision_encoder(pixels()).last_hidden_state.square().sum().backward()
    return [each.grad.clone() for each in model.vision_encoder.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_gradients_are_the_same(family: str, attention: str) -> None:
    model = build(family, attention=attention)
    plain = gradients(model)
    with recompute_blocks(model, describe(model)):
        found = gradients(model)
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))


def test_a_graph_can_be_walked_more_than_once() -> None:
    model = build()
    weight = model.vision_encoder.layers[0].mlp.lin2.weight
    with recompute_blocks(model, describe(model)):
        total = model.vision_encoder(pixels()).last_hidden_state.square().sum()
        first = torch.autograd.grad(total, [weight], retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(total, [weight])[0])


def test_blocks_are_computed_twice_and_keep_their_input_only() -> None:
    model = build()
    calls: list[int] = []
    hook = model.vision_encoder.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))

    def keep() -> int:
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            total = model.vision_encoder(pixels()).last_hidden_state.sum()
        total.backward()
        return kept

    plain = keep()
    assert len(calls) == 1
    with recompute_blocks(model, describe(model)):
        assert keep() < plain / 2
    hook.remove()
    assert len(calls) == 3


def test_blocks_are_found_in_every_layout() -> None:
    whole = build()
    for model in (whole, whole.vision_encoder, apply_plan(whole, draw_plan(whole, {"blocks.0.mlp": 8}))):
        encoder: Any = getattr(model, "vision_encoder", model)
        assert find_blocks(model, describe(model)) == list(encoder.layers)


def test_forward_is_the_models_own_again_after_an_error() -> None:
    model = build()
    own = model.vision_encoder.layers[0].forward
    model.vision_encoder.layers[1].forward = own
    with pytest.raises(RuntimeError, match="mine"), recompute_blocks(model, describe(model)):
        raise RuntimeError("mine")
    assert "forward" not in vars(model.vision_encoder.layers[0])
    assert vars(model.vision_encoder.layers[1])["forward"] is own
