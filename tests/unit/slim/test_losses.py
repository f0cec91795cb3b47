"""Every term pulls at all that it should, padding at nothing, and images count alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.errors import MismatchError
from aerogel.slim.features import Bottleneck, Features, mask_tokens, mask_windows, observe
from aerogel.slim.losses import (
    Loss,
    bottleneck_loss,
    bottleneck_weight,
    embedding_loss,
    embedding_weight,
    mask_loss,
    mean_error,
    output_loss,
)
from aerogel.slim.surgery import apply_plan
from tests.unit.slim.tiny import build, draw_plan, pixels

SCALED = [(64, 40), (17, 64)]
REAL = mask_tokens(SCALED, 4, 16)


def look(model: Any, real: Tensor | None = REAL, images: Tensor | None = None) -> Features:
    with observe(model) as seen:
        return seen.encode(pixels() if images is None else images, real)


def moved(family: str = "sam", **vision: Any) -> tuple[Any, Any]:
    """Return a teacher, and a student that has other weights."""
    return build(family, seed=0, **vision), build(family, seed=1, **vision)


def test_weights_are_those_of_the_paper() -> None:
    assert [bottleneck_weight(epoch) for epoch in (0, 1, 9, 10, 11, 39)] == [0.5, 0.5, 0.5, 0, 0, 0]
    assert [bottleneck_weight(epoch, 2, 0.3) for epoch in (0, 1, 2)] == [0.3, 0.3, 0]
    paper = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0]
    assert [embedding_weight(epoch) for epoch in range(12)] == pytest.approx(paper)
    coded = [10 / 11, 9 / 11, 8 / 11, 7 / 11, 6 / 11, 5 / 11, 4 / 11, 3 / 11, 2 / 11, 1 / 11, 0.0, 0.0]
    assert [embedding_weight(epoch, 11) for epoch in range(12)] == pytest.approx(coded)


def test_the_mean_error_is_that_of_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes, images = [(6, 2, 3, 5), (2, 4, 1, 7)], 2
    pairs: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for shape in shapes:
        one, other = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        pairs.append((one, other, torch.rand(shape[:3], generator=generator) > 0.3))
    means = []
    for image in range(images):
        errors = []
        for one, other, real in pairs:
            assert real is not None
            part = one.shape[0] // images
            for n in range(image * part, (image + 1) * part):
                for place in real[n].nonzero().tolist():
                    errors += [
                        (a - b) ** 2
                        for a, b in zip(one[n][tuple(place)], other[n][tuple(place)], strict=True)
                    ]
        means.append(float(sum(errors) / len(errors)))
    assert float(mean_error(pairs, images)) == pytest.approx(sum(means) / images, rel=1e-12)
    whole = [(one, other, None) for one, other, _ in pairs[:1]]
    wanted = torch.nn.functional.mse_loss(pairs[0][0], pairs[0][1])
    assert float(mean_error(whole, images)) == pytest.approx(float(wanted), rel=1e-12)


def test_the_relative_error_is_each_images_share_of_what_is_compared_with() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    real = torch.rand(4, 2, 3, generator=generator) > 0.3
    pairs = [(one, other, real), (3 * one, 3 * other, None)]
    # The second image's share must not change when all of it grows.
    scale = torch.tensor([1.0, 1.0, 7.0, 7.0], dtype=torch.float64)[:, None, None, None]
    grown = [(each * scale, their * scale, mask) for each, their, mask in pairs]
    shares = []
    for image in (slice(0, 2), slice(2, 4)):
        kept = real[image]
        error = (one[image] - other[image]).square()
        power = other[image].square()
        shares.append((error[kept].sum() + 9 * error.sum()) / (power[kept].sum() + 9 * power.sum()))
    wanted = float(sum(shares)) / 2
    assert float(mean_error(pairs, 2, relative=True)) == pytest.approx(wanted, rel=1e-12)
    assert float(mean_error(grown, 2, relative=True)) == pytest.approx(wanted, rel=1e-12)
    leaves = [each.clone().requires_grad_() for each in (one, other)]
    mean_error([(leaves[0], leaves[1], real)], 2, relative=True).backward()
    assert leaves[0].grad is not None and leaves[1].grad is None
    nothing = torch.zeros_like(other)
    assert float(mean_error([(nothing, other, real)], 2, relative=True)) == pytest.approx(1.0)
    # Where there is nothing to compare with, the sum stays: no division by zero.
    assert math.isfinite(float(mean_error([(one, nothing, real)], 2, relative=True)))
    assert float(mean_error([(one, other, torch.zeros_like(real))], 2, relative=True)) == 0.0


def test_the_error_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    other = torch.randn(4, 2, 2, 3, generator=generator, dtype=torch.float64)
    real = torch.rand(4, 2, 2, generator=generator) > 0.3
    assert torch.autograd.gradcheck(lambda each: mean_error([(each, other, real)], 2), (one,))
    half = one.detach().bfloat16().requires_grad_()
    mean_error([(half, other.bfloat16(), real)], 2).backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16


def test_features_that_do_not_fit_are_refused() -> None:
    one = torch.zeros(2, 3, 3, 4)
    with pytest.raises(MismatchError, match="same shape"):
        mean_error([(one, one[..., :3], None)], 2)
    with pytest.raises(MismatchError, match="a mask with one value for each token"):
        mean_error([(one, one, torch.ones(2, 3, 2, dtype=torch.bool))], 2)
    with pytest.raises(MismatchError, match="features to compare"):
        mean_error([], 2)
    bare = replace(look(build()), bottlenecks=(), residuals=())
    with pytest.raises(MismatchError, match="observe both with bottlenecks=True"):
        bottleneck_loss(bare, bare, 0.5)
    with pytest.raises(MismatchError, match="residuals=True"):
        embedding_loss(look(build()), bare, bare, 0.5)
    with pytest.raises(MismatchError, match="none before"):
        embedding_loss(look(build()), None, bare, 0.5)


@pytest.mark.parametrize("changes", [{"mlp": 11}, {"head_dims": 3}, {"heads": 2}])
def test_bottlenecks_of_other_widths_are_refused(changes: dict[str, int]) -> None:
    model = build()
    student = apply_plan(model, draw_plan(model, changes))
    with pytest.raises(MismatchError):
        bottleneck_loss(look(student), look(model), 0.5)
    assert bottleneck_loss(look(student), look(model), 0.0).terms.keys() == {"output"}


def test_a_student_with_fewer_heads_learns_in_the_second_phase() -> None:
    teacher = build()
    before = apply_plan(teacher, draw_plan(teacher, {"embedding": 16}))
    student = apply_plan(before, draw_plan(before, {"heads": 2, "mlp": 11}))
    loss = embedding_loss(look(student), look(before), look(teacher), 0.4)
    assert float(loss.total.detach()) > 0
    with pytest.raises(MismatchError, match="same shape"):
        embedding_loss(look(student), look(teacher), look(teacher), 0.4)
    assert float(bottleneck_loss(look(before), look(teacher), 0.5).total.detach()) > 0


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_a_copy_has_no_error(family: str) -> None:
    found = look(build(family))
    for loss in (
        bottleneck_loss(found, found, 0.5),
        embedding_loss(found, found, found, 0.5),
        output_loss(found, found),
    ):
        assert float(loss.total.detach()) == 0 and set(loss.terms.values()) == {0.0}


@pytest.mark.parametrize("relative", [False, True])
def test_losses_are_their_formulas(relative: bool) -> None:
    teacher, student = moved()
    ours, theirs = look(student, None), look(teacher, None)

    def mse(one: list[Tensor], other: list[Tensor]) -> float:
        ours, theirs = (
            torch.cat([each.detach().reshape(2, -1) for each in side], 1) for side in (one, other)
        )
        means = (ours - theirs).square().mean(1)
        return float((means / theirs.square().mean(1) if relative else means).mean())

    def pick(found: Features, windows: bool) -> list[Tensor]:
        return [each.qkv for each in found.bottlenecks if bool(each.window) == windows]

    output = mse([ours.embedding], [theirs.embedding])
    parts = [mse(pick(ours, each), pick(theirs, each)) for each in (True, False)]
    hidden = mse([each.hidden for each in ours.bottlenecks], [each.hidden for each in theirs.bottlenecks])
    found = bottleneck_loss(ours, theirs, 0.25, relative=relative)
    assert float(found.total.detach()) == pytest.approx(0.25 * (sum(parts) + hidden) + 0.75 * output)
    assert found.terms == pytest.approx(
        {"window_qkv": parts[0], "global_qkv": parts[1], "hidden": hidden, "output": output}
    )
    former = look(build(seed=2), None)
    residuals = mse(list(ours.residuals), list(former.residuals))
    again = mse([ours.embedding], [former.embedding])
    second = embedding_loss(ours, former, theirs, 0.25, relative=relative)
    assert float(second.total.detach()) == pytest.approx(0.25 * (residuals + again) + 0.75 * output)
    assert second.terms == pytest.approx({"residuals": residuals, "before_output": again, "output": output})


def gradients(features: Features, loss: Loss) -> dict[str, float]:
    """Return how much the loss pulls at each feature of the student."""
    places: dict[str, Tensor] = {}
    for index, block in enumerate(features.bottlenecks):
        places[f"{index}.qkv"], places[f"{index}.hidden"] = block.qkv, block.hidden
    for index, state in enumerate(features.residuals):
        places[f"residual.{index}"] = state
    found = torch.autograd.grad(loss.total, list(places.values()), retain_graph=True, allow_unused=True)
    pulls = {}
    for (name, tensor), gradient in zip(places.items(), found, strict=True):
        each = torch.zeros_like(tensor) if gradient is None else gradient
        if name.endswith("qkv"):
            for part, chunk in zip("qkv", each.chunk(3, -1), strict=True):
                pulls[f"{name[:2]}{part}"] = float(chunk.abs().max())
        else:
            pulls[name] = float(each.abs().max())
    return pulls


def detached(features: Features) -> Features:
    """Return the features as leaves, so that a loss pulls at each directly and not through later ones."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_()

    blocks = tuple(
        Bottleneck(leaf(each.qkv), leaf(each.hidden), each.window, each.heads)
        for each in features.bottlenecks
    )
    residuals = tuple(leaf(each) for each in features.residuals)
    return replace(features, embedding=leaf(features.embedding), residuals=residuals, bottlenecks=blocks)


def test_every_term_pulls() -> None:
    teacher, student = moved()
    ours, theirs = detached(look(student)), look(teacher)
    pulls = gradients(ours, bottleneck_loss(ours, theirs, 0.5))
    blocks = {f"{index}.{part}" for index in range(3) for part in ("q", "k", "v", "hidden")}
    assert {name for name, pull in pulls.items() if pull > 0} == blocks
    # The published code compares the queries, keys and values of global blocks with themselves.
    pulls = gradients(ours, bottleneck_loss(ours, theirs, 0.5, repaired=False))
    assert {name for name, pull in pulls.items() if pull > 0} == blocks - {"1.q", "1.k", "1.v"}
    pulls = gradients(ours, embedding_loss(ours, look(build(seed=2)), theirs, 0.5))
    assert {name for name, pull in pulls.items() if pull > 0} == {f"residual.{index}" for index in range(7)}


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_every_weight_of_the_encoder_is_pulled_at(family: str) -> None:
    teacher, student = moved(family)
    before = look(build(family, seed=2))
    ours, theirs = look(student), look(teacher)
    for loss in (
        bottleneck_loss(ours, theirs, 0.5),
        embedding_loss(ours, before, theirs, 0.5),
        output_loss(ours, theirs),
    ):
        student.zero_grad()
        loss.total.backward(retain_graph=True)
        for name, parameter in student.vision_encoder.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_errors_of_masks_count_beside_the_output() -> None:
    teacher, student = moved()
    output = output_loss(look(student), look(teacher))
    errors = {
        "masks": torch.tensor(0.5, requires_grad=True),
        "scores": torch.tensor(0.25, requires_grad=True),
    }
    loss = mask_loss(errors, output, 0.2)
    assert float(loss.total.detach()) == pytest.approx(0.75 + 0.2 * float(output.total.detach()))
    assert loss.terms == {"masks": 0.5, "scores": 0.25, **output.terms}
    loss.total.backward()
    assert all(float(error.grad) == 1.0 for error in errors.values() if error.grad is not None)
    assert student.vision_encoder.neck.conv1.weight.grad.any()


def test_details_pull_where_the_embedding_does_not_see() -> None:
    teacher, student = moved("sam_hq")
    ours, theirs = look(student), look(teacher)
    found = output_loss(ours, theirs)
    assert found.terms.keys() == {"output", "details"}
    assert float(found.total.detach()) == pytest.approx(found.terms["output"] + found.terms["details"])
    same = replace(ours, embedding=theirs.embedding)
    assert output_loss(same, theirs).terms["output"] == 0 and output_loss(same, theirs).terms["details"] > 0


def spoil(features: Features) -> Features:
    """Change everything at tokens that are not real: image padding and what fills up windows."""

    def change(tensor: Tensor, real: Tensor) -> Tensor:
        return torch.where(real[..., None], tensor, torch.full_like(tensor, float("nan")))

    assert features.real is not None
    real = features.real
    blocks = tuple(
        replace(
            each,
            qkv=change(each.qkv, mask_windows(real, each.window)),
            hidden=change(each.hidden, real),
        )
        for each in features.bottlenecks
    )
    return replace(
        features,
        embedding=change(features.embedding.permute(0, 2, 3, 1), real).permute(0, 3, 1, 2),
        residuals=tuple(change(each, real) for each in features.residuals),
        bottlenecks=blocks,
    )


def test_padding_does_not_count() -> None:
    teacher, student = moved()
    ours, theirs, before = look(student), look(teacher), look(build(seed=2))
    spoiled = spoil(ours)
    assert all(each.qkv.isnan().any() for each in spoiled.bottlenecks)
    pairs = (
        (bottleneck_loss(ours, theirs, 0.5), bottleneck_loss(spoiled, theirs, 0.5)),
        (embedding_loss(ours, before, theirs, 0.5), embedding_loss(spoiled, before, theirs, 0.5)),
    )
    for one, other in pairs:
        assert torch.equal(one.total, other.total) and one.terms == other.terms
    leaves = detached(spoiled)
    loss = bottleneck_loss(leaves, theirs, 0.5)
    for each in leaves.bottlenecks:
        gradient = torch.autograd.grad(loss.total, each.qkv, retain_graph=True)[0]
        assert gradient[~mask_windows(REAL, each.window)].abs().max() == 0


def test_images_count_alike_in_whatever_batch() -> None:
    teacher, student = moved()
    before = build(seed=2)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(3, 3, 64, 64, generator=generator, dtype=torch.float64)
    real = mask_tokens([(64, 40), (17, 64), (64, 64)], 4, 16)

    def losses(chosen: list[int]) -> Tensor:
        ours, first, former = (
            look(each, real[chosen], images[chosen]) for each in (student, teacher, before)
        )
        return torch.stack(
            [bottleneck_loss(ours, first, 0.5).total, embedding_loss(ours, former, first, 0.5).total]
        ).detach()

    together = losses([0, 1, 2])
    parts = (losses([0]) + 2 * losses([2, 1])) / 3
    assert torch.allclose(together, parts, rtol=1e-12)
