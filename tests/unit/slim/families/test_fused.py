"""Attention without a table of relative positions gives what transformers gives, and so do its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.slim import apply_plan
from aerogel.slim.families import fused
from aerogel.slim.families.family import find_family
from aerogel.slim.families.fused import attend, fusing
from tests.unit.slim.tiny import apart, build, draw_plan, embed, pixels


def answer(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the embedding of some images, and the derivatives of a sum of it by every weight."""
    encoder = model.vision_encoder
    encoder.zero_grad()
    embedding = encoder(pixels(next(encoder.parameters()).dtype)).last_hidden_state
    (
        embedding * torch.linspace(-1, 1, embedding.numel(), dtype=embedding.dtype).view_as(embedding)
    ).sum().backward()
    return embedding.detach(), {name: each.grad.clone() for name, each in encoder.named_parameters()}


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("positions", [True, False])
def test_the_same_embedding_and_the_same_gradients(family: str, positions: bool) -> None:
    model = build(family, use_rel_pos=positions)
    wanted, slopes = answer(model)
    with fusing(model):
        found, derivatives = answer(model)
        with torch.no_grad():
            watched = model.vision_encoder(pixels()).last_hidden_state
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(watched, wanted, rtol=0, atol=1e-12)
    assert found.abs().max() > 0.1
    for name, slope in slopes.items():
        torch.testing.assert_close(derivatives[name], slope, rtol=1e-9, atol=1e-12, msg=name)
        assert slope.abs().max() > 0, name


@pytest.mark.parametrize(("side", "length"), [(3, 5), (5, 9), (4, 5), (4, 11)])
def test_relative_positions_lie_as_in_transformers(side: int, length: int) -> None:
    attention = build().vision_encoder.layers[0].attn
    table = torch.randn(length, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table.requires_grad_()
    weights = torch.linspace(-1, 1, side * side * 4, dtype=torch.float64).view(side, side, 4)
    found, wanted = fused._place(attention, table, side), attention.get_rel_pos(side, side, table)
    assert torch.equal(found, wanted)
    slopes = [torch.autograd.grad((each * weights).sum(), table)[0] for each in (found, wanted)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("widths", [{"embedding": 12, "head_dims": 3}, {"blocks.0.head_dims": 2}])
def test_narrowed_heads_keep_their_scale(widths: dict[str, int]) -> None:
    model = build()
    narrow = apply_plan(model, draw_plan(model, widths))
    wanted = embed(narrow)
    with fusing(narrow):
        torch.testing.assert_close(embed(narrow), wanted, rtol=0, atol=1e-12)


def test_weights_that_are_not_remembered_give_the_gradients_of_all_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build()
    with fusing(model):
        _, wanted = answer(model)
        monkeypatch.setattr(fused, "_KEPT", 0)
        _, again = answer(model)
        monkeypatch.setattr(fused, "_CHUNK", 200)
        _, found = answer(model)
    for name, slope in wanted.items():
        torch.testing.assert_close(again[name], slope, rtol=1e-9, atol=1e-12, msg=name)
        torch.testing.assert_close(found[name], slope, rtol=1e-9, atol=1e-12, msg=name)


def test_blocks_may_be_computed_again() -> None:
    model = build()
    with fusing(model):
        _, wanted = answer(model)
        with find_family(model).locate(model).recomputing():
            _, found = answer(model)
    for name, slope in wanted.items():
        torch.testing.assert_close(found[name], slope, rtol=0, atol=0, msg=name)


def test_in_bfloat16_it_is_as_near_as_the_plain_form() -> None:
    exact, slopes = answer(build())

    def lose(fuse: bool) -> tuple[float, float]:
        model = build(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16), fusing(model if fuse else None):
            found, derivatives = answer(model)
        name = "layers.1.attn.qkv.weight"
        return apart(found.double(), exact), apart(derivatives[name].double(), slopes[name])

    plain, ours = lose(False), lose(True)
    assert plain[0] > 1e-4
    assert ours[0] < 2 * plain[0]
    assert ours[1] < 2 * plain[1]


def test_modules_are_as_before_at_the_end_also_after_an_error() -> None:
    model = build()
    attention = model.vision_encoder.layers[0].attn
    with pytest.raises(KeyError), fusing(model):
        assert attention.forward.func is attend
        with fusing(model):
            pass
        assert attention.forward.func is attend
        raise KeyError
    assert "forward" not in vars(attention)


def test_hooks_see_what_passes() -> None:
    model = build()
    attention = model.vision_encoder.layers[0].attn
    seen: list[Tensor] = []
    for module in (attention.qkv, attention.proj):
        module.register_forward_hook(lambda module, given, made: seen.extend((given[0], made)))
    embed(model)
    plain = list(seen)
    seen.clear()
    with fusing(model):
        embed(model)
    assert len(seen) == len(plain) == 4
    for one, other in zip(seen, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_other_models_are_left_alone() -> None:
    eager, linear = build(attention="eager"), nn.Linear(2, 2)
    with fusing(eager), fusing(linear), fusing(None):
        assert all("forward" not in vars(each) for each in (*eager.modules(), linear))
