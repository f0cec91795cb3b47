"""What is left is fitted to what was there: exactly where that can be, and never for the worse."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.errors import DataError, MismatchError
from aerogel.slim import apply_plan, describe, identity_plan, observe
from aerogel.slim import reconstruction as module
from aerogel.slim.families.family import find_family
from aerogel.slim.plan import Plan
from aerogel.slim.reconstruction import measure_photo, reconstruct_
from aerogel.slim.surgery import cut_outputs
from tests.unit.slim.tiny import SIDE, apart, build, draw_plan, embed

WIDTHS: dict[str, dict[str, int]] = {
    "embedding": {"embedding": 12},
    "bottlenecks": {"heads": 3, "head_dims": 4, "mlp": 17},
    "whole": {"embedding": 12, "head_dims": 3, "mlp": 16},
    "flex": {"blocks.0.head_dims": 2, "blocks.1.heads": 3, "blocks.1.mlp": 7, "mlp": 20},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_rel_pos": {"use_rel_pos": False},
    "no_abs_pos": {"use_abs_pos": False},
    "no_qkv_bias": {"qkv_bias": False},
}


def photos(count: int = 40, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) for _ in range(count)]


def error(student: Any, teacher: Any, images: list[Tensor]) -> float:
    joined = torch.cat(images)
    return float((embed(student, joined) - embed(teacher, joined)).square().mean())


def stream(model: Any, images: list[Tensor]) -> list[Tensor]:
    with torch.no_grad(), observe(model, bottlenecks=False) as seen:
        return list(seen.encode(torch.cat(images)).residuals)


def lacking(student: Any, model: Any, plan: Plan, images: list[Tensor]) -> list[float]:
    """Return the error of the residual stream after each block, as a share of what stays of the model's."""
    kept = list(plan.kept["embedding"])
    # The stream where it enters the first block, then after each half block.
    pairs = zip(stream(model, images)[2::2], stream(student, images)[2::2], strict=True)
    return [
        float((one[..., kept] - other).square().sum() / one[..., kept].square().sum()) for one, other in pairs
    ]


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_nothing_changes_where_nothing_was_cut(family: str) -> None:
    model = build(family)
    plan = identity_plan(describe(model))
    student = apply_plan(model, plan)
    errors = reconstruct_(student, model, plan, photos(4))
    assert len(errors) == 3 and max(errors) < 1e-20
    assert apart(embed(model), embed(student)) < 1e-9


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_what_is_left_comes_nearer_to_what_was(family: str, widths: dict[str, int]) -> None:
    model = build(family)
    plan = draw_plan(model, widths)
    cut, student = apply_plan(model, plan), apply_plan(model, plan)
    before = copy.deepcopy(model.state_dict())
    errors = reconstruct_(student, model, plan, photos())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert errors == pytest.approx(lacking(student, model, plan, photos()), rel=1e-9)
    # On photos that it was not fitted to.
    new = photos(6, seed=9)
    shares = zip(lacking(student, model, plan, new), lacking(cut, model, plan, new), strict=True)
    assert all(one < 0.7 * other for one, other in shares)
    assert error(student, model, new) < error(cut, model, new)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_kind_of_encoder_is_fitted(variant: dict[str, Any]) -> None:
    model = build(**variant)
    plan = draw_plan(model, WIDTHS["whole"])
    cut, student = apply_plan(model, plan), apply_plan(model, plan)
    reconstruct_(student, model, plan, photos())
    new = photos(6, seed=9)
    assert lacking(student, model, plan, new)[-1] < 0.5 * lacking(cut, model, plan, new)[-1]
    assert error(student, model, new) < error(cut, model, new)


def test_channels_that_others_repeat_can_go_without_loss() -> None:
    model = build()
    for layer in model.vision_encoder.layers:
        with torch.no_grad():
            for value in (layer.mlp.lin1.weight, layer.mlp.lin1.bias):
                value[20:] = value[:20]
    channels = describe(model)
    kept = {name: tuple(range(20 if name.endswith("mlp") else size)) for name, size in channels.sizes.items()}
    plan = identity_plan(channels)
    plan = type(plan)(plan.family, "stock", plan.sizes, kept)
    cut, student = apply_plan(model, plan), apply_plan(model, plan)
    errors = reconstruct_(student, model, plan, photos(), ridge=1e-9)
    assert apart(embed(model), embed(student)) < 1e-5 < 1e-2 < apart(embed(model), embed(cut))
    assert max(errors) < 1e-10


def test_a_fit_is_the_ridge_regression_of_the_books() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    wanted = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    former = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    whole = torch.cat([given, torch.ones(50, 1, dtype=torch.float64)], 1)
    inputs, outputs = whole.T @ whole, whole.T @ wanted
    solved = module._solve(inputs, outputs, former, 0.1, biased=True).requires_grad_()
    powers = given.square().sum(0)
    # In the size in which they fit best, whatever the bias.
    made, aims = (each - each.mean(0) for each in (given @ former, wanted))
    scale = max(0.0, float((made * aims).sum() / made.square().sum()))

    def loss(weights: Tensor) -> Tensor:
        held = 0.1 * powers[:, None] * (weights[:4] - scale * former).square()
        return (whole @ weights - wanted).square().sum() + held.sum()

    (slope,) = torch.autograd.grad(loss(solved), solved)
    assert float(slope.abs().max()) < 1e-10
    bare = module._solve(inputs, outputs, former, 1e-12, biased=False)
    assert torch.allclose(bare, torch.linalg.lstsq(given, wanted).solution, atol=1e-8)


def test_an_input_that_is_always_zero_leaves_its_weights() -> None:
    inputs, outputs = torch.zeros(3, 3).double(), torch.zeros(3, 2).double()
    inputs[0, 0] = inputs[2, 2] = 4.0
    former = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    found = module._solve(inputs, outputs, former, 0.5, biased=True)
    # Weights that make nothing of what is wanted are held to in no size.
    assert torch.equal(found[1], torch.zeros(2).double()) and bool(torch.isfinite(found).all())
    outputs[0] = 4.0 * former[0]
    assert torch.allclose(module._solve(inputs, outputs, former, 0.5, biased=True)[1], former[1])


def test_an_input_that_next_to_no_token_has_is_held_to() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    given[:, 3] = 0.0
    given[0, 3] = 1e-6
    former = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    wanted = given @ former
    wanted[0] += 1.0
    found = module._solve(given.T @ given, given.T @ wanted, former, 0.03, biased=False)
    assert torch.allclose(found[3], former[3], atol=0.1)


def test_weights_of_another_size_are_no_worse_a_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    former = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    whole = torch.cat([given, torch.ones(50, 1, dtype=torch.float64)], 1)
    for size in (0.2, 1.0, 7.0):
        found = module._solve(
            whole.T @ whole, whole.T @ (given @ former + 2.0), former * size, 0.5, biased=True
        )
        assert torch.allclose(found[:4], former) and torch.allclose(found[4], torch.tensor(2.0).double())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_what_attention_mixes_is_what_its_projection_takes(family: str, attention: str) -> None:
    model = build(family, attention=attention)
    sites = find_family(model).locate(model)
    states = stream(model, photos(2))
    with torch.no_grad():
        for index, block in enumerate(sites.blocks):
            layer: Any = block.layer
            mixed = states[2 * index] + layer.attn.proj(block.mix(states[2 * index]))
            assert apart(states[2 * index + 1], mixed) < 1e-12


def test_cut_outputs_are_those_of_the_whole_layer() -> None:
    model = build()
    plan = draw_plan(model, {"embedding": 12, "head_dims": 3, "mlp": 16})
    rows = cut_outputs(model, plan)
    cut = dict(apply_plan(model, plan).named_parameters())
    name = "vision_encoder.layers.0.mlp.lin1.weight"
    assert rows[name].shape == (16, 24)
    assert torch.equal(rows[name][:, list(plan.kept["embedding"])], cut[name])
    qkv = "vision_encoder.layers.0.attn.qkv.bias"
    # Keys of heads with half their dimensions are multiplied by the square root of a half.
    assert torch.equal(rows[qkv], cut[qkv]) and rows[qkv].shape == (36,)


def test_many_tokens_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    plan = draw_plan(model, WIDTHS["embedding"])
    students = [apply_plan(model, plan) for _ in range(2)]
    reconstruct_(students[0], model, plan, photos())
    monkeypatch.setattr(module, "_TOKENS", 40 * 16 // 2)
    reconstruct_(students[1], model, plan, photos())
    one, other = (error(each, model, photos(6, seed=9)) for each in students)
    assert one != other and other < 1.5 * one


def test_bytes_of_a_photo_are_those_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dtype=torch.float32)
    plan = draw_plan(model, WIDTHS["whole"])
    student = apply_plan(model, plan)
    # 4 x 4 tokens of float32: our stream as it is and as it will be, theirs, and what attention mixed.
    assert measure_photo(student, model) == 4 * 16 * (2 * 12 + 24 + 12)


def test_mistakes_are_told() -> None:
    model = build()
    plan = draw_plan(model, WIDTHS["embedding"])
    student = apply_plan(model, plan)

    def none() -> Iterator[Tensor]:
        yield from ()

    with pytest.raises(DataError, match="at least one image"):
        reconstruct_(student, model, plan, none())
    with pytest.raises(MismatchError, match="what the plan leaves"):
        reconstruct_(model, model, plan, photos(1))
    with pytest.raises(MismatchError):
        reconstruct_(student, student, plan, photos(1))
