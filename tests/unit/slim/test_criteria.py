"""Each criterion is what it says: exact where it can be computed, convergent, and free of lockstep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aerogel.errors import MismatchError
from aerogel.slim import apply_plan, describe, identity_plan, mask_channels, score_channels
from aerogel.slim.channels import Group
from aerogel.slim.criteria import CRITERIA
from aerogel.slim.gates import hang_gates
from aerogel.slim.objectives import OwnMasks
from aerogel.slim.plan import Plan
from tests.unit.slim.tiny import build, draw_plan, embed, pixels

NAMES = ("embedding", "blocks.1.mlp", "blocks.1.head_dims", "blocks.1.heads")
DISTURBED = ("disturbed-taylor", "disturbed-taylor-as-coded")


def correlate(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation."""
    return float(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1])


def measure_damage(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return the embedding's mean squared error without each channel of a group in turn."""
    ident, whole = identity_plan(describe(model)), embed(model, images)
    found = []
    for channel in ident.kept[name]:
        kept = {**ident.kept, name: tuple(each for each in ident.kept[name] if each != channel)}
        with mask_channels(model, Plan(ident.family, "flex", ident.sizes, kept)):
            found.append(float((embed(model, images) - whole).square().mean()))
    return torch.tensor(found)


def permute_(model: nn.Module, group: Group, order: list[int]) -> nn.Module:
    """Reorder a group's channels in place, in all parameters: new channel c is old channel order[c]."""
    with torch.no_grad():
        for axis in group.axes:
            parameter = model.get_parameter(axis.parameter)
            places = list(range(parameter.shape[axis.dim]))
            for repeat in range(axis.repeats):
                for new, old in enumerate(order):
                    for i in range(axis.block):
                        start = axis.offset + repeat * group.size * axis.block + i
                        places[start + new * axis.block] = start + old * axis.block
            parameter.copy_(parameter.index_select(axis.dim, torch.tensor(places)))
    return model


def exact_fisher(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the mean over images and outputs of the squared derivatives by the gates: all unit products."""
    groups = describe(model).groups
    sums = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    with hang_gates(model, groups) as gates:
        for image in images.split(1):
            outputs = model(image).last_hidden_state.reshape(-1)
            for output in outputs:
                slopes = torch.autograd.grad(output, list(gates.values()), retain_graph=True)
                for name, slope in zip(gates, slopes, strict=True):
                    sums[name] += slope.square() / (len(outputs) * len(images))
    return sums


def test_fisher_converges_to_the_exact_jacobian() -> None:
    model, images = build(output_channels=6, num_hidden_layers=2).vision_encoder, pixels(count=2)
    exact = exact_fisher(model, images)
    errors = []
    for draws in (2, 8, 64):
        found = score_channels(model, [images], seed=3, draws=draws)
        deviations = torch.cat([found[name] / exact[name] - 1 for name in exact])
        errors.append(float(deviations.square().mean().sqrt()))
    # The deviation of a mean of 2 x draws squares of normal numbers is 1 / sqrt(draws).
    assert [error * draws**0.5 < 1.5 for error, draws in zip(errors, (2, 8, 64), strict=True)] == [True] * 3
    assert errors[0] > 1.4 * errors[1] > 2.8 * errors[2]


@pytest.mark.parametrize("name", NAMES)
def test_fisher_foresees_the_damage_of_single_channels(name: str) -> None:
    kind: Any = name.rpartition(".")[2]
    for seed in range(2):
        model, images = build(seed=seed, num_attention_heads=6), pixels()
        damage = measure_damage(model, name, images)
        fisher = score_channels(model, [images], seed=0, draws=32, kinds=[kind])[name]
        magnitude = score_channels(model, [], "magnitude", seed=0, kinds=[kind])[name]
        assert correlate(fisher, damage) > max(0.75, correlate(magnitude, damage))
        if kind == "embedding":
            # What coupling channels costs: one sample of noise, and a score for every sixth.
            averaged, summed = (
                score_channels(model, [images], each, seed=0, draws=8, kinds=[kind])[name]
                for each in DISTURBED
            )
            assert correlate(averaged, damage) > correlate(summed, damage) + 0.2
        if kind == "mlp":
            # Small enough a part that the first order gives the size too: here the geometric mean.
            assert 0.9 < float((fisher / damage).log().mean().exp()) < 1.1


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("criterion", ["channel-fisher", "taylor", "disturbed-taylor", "magnitude"])
def test_scores_follow_channels_that_change_places(criterion: str, family: str) -> None:
    model = build(family)
    before = score_channels(model, [pixels()], criterion, seed=1)
    # SAM-HQ gives out the residual stream, and noise on what is given out has no channel to follow.
    first = int(family == "sam_hq" and criterion in {"channel-fisher", "disturbed-taylor"})
    for number, group in enumerate(describe(model).groups[first:5]):
        order = np.random.default_rng(number).permutation(group.size).tolist()
        permute_(model, group, order)
        before[group.name] = before[group.name][order]
    after = score_channels(model, [pixels()], criterion, seed=1)
    for name, wanted in before.items():
        assert torch.allclose(after[name], wanted, rtol=1e-8, atol=0), name


def test_averages_agree_between_seeds_and_sums_do_not() -> None:
    model = build()
    stream = torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    agreement: dict[tuple[str, int], float] = {}
    for criterion in (*DISTURBED, "channel-fisher"):
        for count in (2, 32):
            one, other = (
                score_channels(model, [stream[:count]], criterion, seed=seed, kinds=["mlp"])
                for seed in (0, 1)
            )
            agreement[criterion, count] = float(np.mean([correlate(one[name], other[name]) for name in one]))
    averaged, summed = ({count: agreement[each, count] for count in (2, 32)} for each in DISTURBED)
    assert averaged[32] > averaged[2] > summed[2]
    assert averaged[32] > 0.97 and summed[32] < 0.95
    assert agreement["channel-fisher", 32] > agreement["channel-fisher", 2]
    assert agreement["channel-fisher", 32] > 0.9


@pytest.mark.parametrize("criterion", DISTURBED)
def test_rankings_do_not_depend_on_the_size_of_noise(criterion: str) -> None:
    model = build()
    one, other = (score_channels(model, [pixels()], criterion, seed=1, noise=noise) for noise in (0.01, 0.1))
    for name in one:
        assert torch.allclose(10 * one[name], other[name], rtol=1e-12)
        assert torch.equal(one[name].argsort(), other[name].argsort())


def test_fisher_knows_no_noise() -> None:
    model = build()
    one, other = (score_channels(model, [pixels()], seed=1, noise=noise) for noise in (0.01, 0.1))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_channels_of_the_stream_are_in_lockstep_as_coded_only() -> None:
    model = build()
    for criterion in CRITERIA.names():
        scores = score_channels(model, [pixels()], criterion, seed=1)["embedding"].reshape(4, 6)
        coupled = criterion == "disturbed-taylor-as-coded"
        assert bool((scores == scores[0]).all()) == coupled, criterion
        assert len(scores.unique()) == (6 if coupled else 24), criterion


def test_disturbed_scores_are_sums_over_a_channels_weights() -> None:
    model, image = build(), pixels(count=1)
    channels = describe(model)
    averaged = score_channels(model, [image], "disturbed-taylor", seed=1)
    coded = score_channels(model, [image], "disturbed-taylor-as-coded", seed=1)
    drawn = _disturb(model, image)
    drawn.backward()
    encoder = model.vision_encoder

    def share(weight: Any, dim: int) -> Tensor:
        product = (weight * weight.grad).detach().abs().movedim(dim, 0)
        return product.reshape(len(product), -1).sum(1)

    block = encoder.layers[1]
    hidden = (share(block.mlp.lin1.weight, 0) + share(block.mlp.lin2.weight, 1)) / 2
    qkv, proj = share(block.attn.qkv.weight, 0), share(block.attn.proj.weight, 1)
    dims = (qkv.reshape(3, 4, 6).sum(1).sum(0) + proj.reshape(4, 6).sum(0)) / 4
    stream = share(encoder.patch_embed.projection.weight, 0) + share(encoder.neck.conv1.weight, 1)
    for layer in encoder.layers:
        stream = stream + share(layer.attn.qkv.weight, 1) + share(layer.attn.proj.weight, 0)
        stream = stream + share(layer.mlp.lin1.weight, 1) + share(layer.mlp.lin2.weight, 0)
    stream = stream / (2 + 4 * channels.blocks)
    # With one image and one draw, the root of the mean square is the absolute value.
    wanted = {"blocks.1.mlp": hidden, "blocks.1.head_dims": dims, "embedding": stream}
    for name, values in wanted.items():
        assert torch.allclose(averaged[name], values, rtol=1e-8)
    wanted["embedding"] = stream.reshape(4, 6).sum(0).repeat(4)
    for name, values in wanted.items():
        assert torch.allclose(coded[name], values, rtol=1e-8)


def _disturb(model: Any, image: Tensor) -> Tensor:
    from aerogel.slim.objectives import Disturbance

    clean = model.vision_encoder(image).last_hidden_state
    (noise,) = Disturbance(model.vision_encoder, seed=1).direct((clean,), 0, 0)
    return (clean - (clean + 0.01 * noise).detach()).square().mean()


def test_taylor_is_the_slope_of_the_loss_of_masks() -> None:
    model, images = build(), pixels()
    groups = describe(model).groups
    found = score_channels(model, [images], "taylor", seed=0)
    wanted = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    with hang_gates(model, groups) as gates:
        for image in images.split(1):
            slopes = torch.autograd.grad(OwnMasks(model).observe(image), list(gates.values()))
            for name, slope in zip(gates, slopes, strict=True):
                wanted[name] += slope.abs() / 2
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9) for name in wanted)


def test_taylor_needs_a_mask_decoder() -> None:
    with pytest.raises(MismatchError, match="without a mask decoder"):
        score_channels(build().vision_encoder, [pixels()], "taylor", seed=0)


def test_magnitude_is_the_mean_over_weights() -> None:
    model = build()
    found = score_channels(model, [], "magnitude", seed=0)
    block = model.vision_encoder.layers[2]
    wanted = (block.mlp.lin1.weight.abs().sum(1) + block.mlp.lin2.weight.abs().sum(0)) / 2
    assert torch.allclose(found["blocks.2.mlp"], wanted.detach())
    heads = block.attn.qkv.weight.abs().sum(1).reshape(3, 4, 6).sum((0, 2))
    heads = heads + block.attn.proj.weight.abs().sum(0).reshape(4, 6).sum(1)
    assert torch.allclose(found["blocks.2.heads"], heads.detach() / 4)


def test_random_scores_are_of_the_seed_alone() -> None:
    one, other = (score_channels(build(seed=seed), [], "random", seed=4) for seed in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["blocks.0.mlp"], one["blocks.1.mlp"])
    assert not torch.equal(one["embedding"], score_channels(build(), [], "random", seed=5)["embedding"])


@pytest.mark.parametrize("criterion", [name for name in CRITERIA.names() if name != "taylor"])
def test_slimmed_models_can_be_scored(criterion: str) -> None:
    model = build()
    widths = {"embedding": 16, "blocks.0.mlp": 7, "blocks.1.head_dims": 3}
    slimmed: Any = apply_plan(model, draw_plan(model, widths))
    scores = score_channels(slimmed, [pixels()], criterion, seed=0)
    assert {name: len(each) for name, each in scores.items()} == describe(slimmed).sizes


def test_as_coded_needs_heads_that_divide_the_stream() -> None:
    model = build()
    slimmed = apply_plan(model, draw_plan(model, {"embedding": 23}))
    with pytest.raises(MismatchError, match="4 heads for 23 channels"):
        score_channels(slimmed, [pixels()], "disturbed-taylor-as-coded", seed=0)
