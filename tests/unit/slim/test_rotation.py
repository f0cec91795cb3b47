"""A rotated model gives what it gave, and can spare more channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.core.config import validate
from aerogel.errors import ConfigError, DataError, MismatchError
from aerogel.slim import apply_plan, describe
from aerogel.slim.plan import Plan, identity_plan
from aerogel.slim.reconstruction import reconstruct_
from aerogel.slim.rotation import list_positions, rotate_embedding_, rotate_heads_, weigh_positions
from tests.unit.slim.test_reconstruction import VARIANTS, error, photos
from tests.unit.slim.tiny import apart, build, embed, segment


def first(model: Any, widths: dict[str, int]) -> Plan:
    """Return the plan that keeps the first channels of each kind."""
    plan = identity_plan(describe(model))
    kept = {
        name: tuple(range(widths.get(name.rpartition(".")[2], size))) for name, size in plan.sizes.items()
    }
    return validate(Plan(plan.family, "flex", plan.sizes, kept))


def turned(model: Any, kinds: Sequence[str], width: int = 12) -> Any:
    copied = copy.deepcopy(model)
    if "embedding" in kinds:
        rotate_embedding_(copied, width, photos())
    if "heads" in kinds:
        rotate_heads_(copied, photos())
    return copied


@pytest.mark.parametrize("kinds", [["embedding"], ["heads"], ["embedding", "heads"]], ids="-".join)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_the_function_stays_the_same(family: str, variant: dict[str, Any], kinds: list[str]) -> None:
    model = build(family, **variant)
    found = turned(model, kinds)
    assert apart(embed(model), embed(found)) < 1e-10
    # SAM-HQ's decoder reads the residual stream too.
    assert apart(segment(model), segment(found)) < 1e-10
    changed = [
        name for name, value in model.state_dict().items() if not torch.equal(value, found.state_dict()[name])
    ]
    assert any("proj.weight" in name for name in changed)
    assert not any("prompt_encoder" in name for name in changed)


@pytest.mark.parametrize(
    ("kinds", "fitted"), [(["embedding"], True), (["heads"], True), (["heads"], False)], ids=str
)
def test_the_first_channels_say_more_than_they_did(kinds: list[str], fitted: bool) -> None:
    model = build()
    widths = {"embedding": 12} if kinds == ["embedding"] else {"head_dims": 3}
    new = photos(6, seed=9)
    errors = []
    for each in (model, turned(model, kinds)):
        plan = first(each, widths)
        student = apply_plan(each, plan)
        if fitted:
            reconstruct_(student, each, plan, photos())
        errors.append(error(student, model, new))
    assert errors[1] < 0.8 * errors[0]


def narrow_(model: Any, count: int) -> None:
    """Let the residual stream have ``count`` directions only, none of which has a mean."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(24, count, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(basis - basis.mean(0))[0]
    project = basis @ basis.T
    encoder = model.vision_encoder
    with torch.no_grad():
        encoder.pos_embed.copy_(encoder.pos_embed @ project)
        patch = encoder.patch_embed.projection
        patch.weight.copy_(torch.tensordot(project, patch.weight, dims=1))
        patch.bias.copy_(project @ patch.bias)
        for layer in encoder.layers:
            # What the norm adds is in no narrow space, and tokens that fill up windows do not get it.
            layer.layer_norm1.bias.zero_()
            for linear in (layer.attn.proj, layer.mlp.lin2):
                linear.weight.copy_(project @ linear.weight)
                linear.bias.copy_(project @ linear.bias)


def test_a_stream_of_few_directions_loses_nothing() -> None:
    model = build()
    narrow_(model, 11)
    found = copy.deepcopy(model)
    lost = rotate_embedding_(found, 12, photos())
    assert len(lost) == 7 and max(lost) < 1e-4
    plan = first(found, {"embedding": 12})
    student = apply_plan(found, plan)
    reconstruct_(student, found, plan, photos(), ridge=1e-9)
    new = photos(6, seed=9)
    assert apart(embed(model, torch.cat(new)), embed(student, torch.cat(new))) < 1e-3
    # Without a turn they are spread over all channels.
    plain = apply_plan(model, first(model, {"embedding": 12}))
    reconstruct_(plain, model, first(model, {"embedding": 12}), photos(), ridge=1e-9)
    assert apart(embed(model, torch.cat(new)), embed(plain, torch.cat(new))) > 0.01


def test_heads_of_few_directions_lose_nothing() -> None:
    model = build()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in model.vision_encoder.layers:
            low = torch.linalg.qr(torch.randn(6, 3, generator=generator, dtype=torch.float64))[0]
            project = low @ low.T
            for value in (layer.attn.qkv.weight, layer.attn.qkv.bias):
                parts = value.unflatten(0, (3, 4, 6))
                value.copy_(torch.einsum("de,phe...->phd...", project, parts).flatten(0, 2))
    found = turned(model, ["heads"])
    student = apply_plan(found, first(found, {"head_dims": 3}))
    assert apart(embed(model), embed(student)) < 1e-3
    plain = apply_plan(model, first(model, {"head_dims": 3}))
    assert apart(embed(model), embed(plain)) > 0.02


def test_more_channels_lose_less() -> None:
    model = build()
    means = []
    for width in (6, 12, 18):
        lost = rotate_embedding_(copy.deepcopy(model), width, photos())
        assert all(0 <= share <= 1 for share in lost)
        means.append(sum(lost) / len(lost))
    assert means[0] > means[1] > means[2]


def test_moments_of_positions_do_not_feel_a_shift() -> None:
    table = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    found = weigh_positions(table)
    assert found.dtype == torch.float64 and torch.allclose(found, weigh_positions(table + 3.0), atol=1e-6)
    assert len(list_positions(build().vision_encoder.layers[0].attn)) == 2
    assert list_positions(build(use_rel_pos=False).vision_encoder.layers[0].attn) == []


def test_a_model_in_float32_keeps_its_function_to_rounding() -> None:
    model = build(dtype=torch.float32)
    images: list[Tensor] = [each.float() for each in photos(8)]
    found = copy.deepcopy(model)
    rotate_embedding_(found, 12, images)
    rotate_heads_(found, images)
    assert apart(embed(model), embed(found)) < 1e-3
    assert all(value.dtype == torch.float32 for value in found.state_dict().values())


@pytest.mark.parametrize("width", [0, 1, 24, 30])
def test_widths_out_of_range_are_refused(width: int) -> None:
    with pytest.raises(ConfigError, match="a width from 2 to 23"):
        rotate_embedding_(build(), width, photos(1))


def test_mistakes_are_told_before_anything_is_changed() -> None:
    model = build()
    with torch.no_grad():
        model.vision_encoder.layers[1].layer_norm1.weight[3] = 0.0
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MismatchError, match="weights of zero beside biases"):
        rotate_embedding_(model, 12, photos(1))
    for rotate in (lambda: rotate_embedding_(model, 12, iter(())), lambda: rotate_heads_(model, iter(()))):
        with pytest.raises(DataError, match="at least one image"):
            rotate()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.vision_encoder.layers[1].layer_norm1.bias[3] = 0.0
    found = copy.deepcopy(model)
    rotate_embedding_(found, 12, photos(4))
    assert apart(embed(model), embed(found)) < 1e-9
