"""Scoring fits plans, depends on model, images and seed alone, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.errors import ConfigError, DataError
from aerogel.slim import Widths, describe, make_plan, score_channels
from aerogel.slim.criteria import CRITERIA
from tests.unit.slim.tiny import SIDE, build, pixels


def snapshot(model: nn.Module) -> list[Any]:
    """Return all that scoring must not change."""
    found: list[Any] = [each.training for each in model.modules()]
    found += [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in model.modules()]
    found += ["forward" in vars(each) for each in model.modules()]
    for parameter in model.parameters():
        grad = parameter.grad
        found += [parameter.requires_grad, parameter.detach().sum().item(), id(grad)]
        found += [] if grad is None else [grad.sum().item()]
    return [*found, torch.get_rng_state().tolist()]


def unsettle_(model: nn.Module) -> None:
    """Give a model modes, gradients and requirements that are not all the same."""
    model.train()
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.ones_like(parameter) if number % 2 else None
        parameter.requires_grad_(number % 3 > 0)


@pytest.mark.parametrize("criterion", CRITERIA.names())
@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_scores_are_ready_for_plans(family: str, criterion: str) -> None:
    model = build(family)
    channels = describe(model)
    scores = score_channels(model, [pixels()], criterion, seed=0)
    assert {name: len(each) for name, each in scores.items()} == channels.sizes
    assert all(each.dtype == torch.float64 and float(each.min()) >= 0 for each in scores.values())
    plan = make_plan(channels, scores, Widths(embedding=16, heads=4, head_dims=4, mlp=20))
    assert plan.widths["embedding"] == 16


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_the_model_is_as_before(criterion: str) -> None:
    model = build()
    unsettle_(model)
    before = snapshot(model)
    score_channels(model, [pixels()], criterion, seed=0, draws=2)
    assert snapshot(model) == before


@pytest.mark.parametrize("criterion", ["channel-fisher", "taylor", "disturbed-taylor"])
def test_the_model_is_as_before_after_an_error(criterion: str) -> None:
    model = build()
    unsettle_(model)
    before = snapshot(model)

    def fail() -> Iterator[Tensor]:
        yield pixels()
        torch.rand(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        score_channels(model, fail(), criterion, seed=0)
    assert snapshot(model) == before
    with pytest.raises(DataError, match="image 1, counted from 0"):
        score_channels(model, [pixels(count=1), pixels(count=1) * torch.inf], criterion, seed=0)
    assert snapshot(model) == before


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_batches_modes_and_callers_do_not_matter(criterion: str) -> None:
    model, images = build(), pixels(count=3)
    wanted = score_channels(model, [images], criterion, seed=2, draws=2)
    model.train().requires_grad_(False)
    torch.manual_seed(1)
    with torch.no_grad():
        found = score_channels(model, images.split(1), criterion, seed=2, draws=2)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with torch.inference_mode():
        found = score_channels(model, iter([images[:2].clone(), images[2:]]), criterion, seed=2, draws=2)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("criterion", ["channel-fisher", "disturbed-taylor", "random"])
def test_seeds_matter(criterion: str) -> None:
    model = build()
    one, other = (score_channels(model, [pixels()], criterion, seed=seed) for seed in (0, 1))
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_a_bare_encoder_scores_as_the_whole_model_does() -> None:
    for family in ("sam", "sam_hq"):
        model = build(family)
        for criterion in ("channel-fisher", "disturbed-taylor"):
            whole = score_channels(model, [pixels()], criterion, seed=0)
            bare = score_channels(model.vision_encoder, [pixels()], criterion, seed=0)
            for name, values in whole.items():
                assert torch.allclose(bare[name], values, rtol=1e-9), (family, criterion, name)


def test_kinds_choose_the_groups_and_change_no_score() -> None:
    model = build()
    every = score_channels(model, [pixels()], seed=0)
    found = score_channels(model, [pixels()], seed=0, kinds=["mlp", "heads"])
    assert list(found) == [name for name in every if name.endswith(("mlp", ".heads"))]
    assert all(torch.allclose(found[name], every[name], rtol=1e-9) for name in found)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_images_that_are_not_needed_are_not_looked_at(criterion: str) -> None:
    def refuse() -> Iterator[Tensor]:
        raise RuntimeError("looked at")
        yield pixels()

    score_channels(build(), refuse(), criterion, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_of_less_precision_give_like_scores(dtype: torch.dtype) -> None:
    wanted = score_channels(build(), [pixels()], seed=0, draws=4)
    found = score_channels(build(dtype=dtype), [pixels()], seed=0, draws=4)
    near = 1e-3 if dtype == torch.float32 else 0.3
    for name, values in wanted.items():
        assert float((found[name] - values).norm() / values.norm()) < near


def test_the_nearest_criterion_and_kind_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'channel-fisher'"):
        score_channels(build(), [pixels()], "chanel-fisher", seed=0)
    kinds: Any = ["head_dim"]
    with pytest.raises(ConfigError, match="did you mean 'head_dims'"):
        score_channels(build(), [pixels()], seed=0, kinds=kinds)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"draws": 0}, "draws of at least 1"),
        ({"noise": 0.0}, "a noise above 0"),
        ({"noise": float("nan")}, "a noise above 0"),
        ({"seed": -1}, "a seed from 0 up"),
        ({"kinds": []}, "leave kinds out"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        score_channels(build(), [pixels()], **{"seed": 0, **changes})


@pytest.mark.parametrize(
    "criterion", [name for name in CRITERIA.names() if name not in {"magnitude", "random"}]
)
def test_no_images_are_refused_where_they_are_needed(criterion: str) -> None:
    with pytest.raises(DataError, match="at least one image"):
        score_channels(build(), [], criterion, seed=0)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([torch.zeros(3, SIDE, SIDE)], r"float32 \[3, 64, 64\] as batch 0"),
        ([torch.zeros(1, 3, SIDE, 32)], r"\[1, 3, 64, 32\] as batch 0"),
        ([pixels(), torch.zeros(1, 1, SIDE, SIDE)], r"\[1, 1, 64, 64\] as batch 1"),
        ([torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)], "uint8"),
        (["a.jpg"], "str as batch 0"),
    ],
)
def test_other_shapes_are_refused(images: list[Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        score_channels(build(), images, seed=0)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(DataError, match="a model of a known family"):
        score_channels(nn.Linear(2, 2), [pixels()], seed=0)


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = build()
    with torch.no_grad():
        model.vision_encoder.layers[0].mlp.lin1.weight[3] = torch.nan
    with pytest.raises(DataError, match="finite scores"):
        score_channels(model, [], "magnitude", seed=0)
