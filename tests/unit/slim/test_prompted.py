"""What students answer to prompts is held against what the teacher answers, view by view."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.slim.config import MasksConfig
from aerogel.slim.features import Features, observe
from aerogel.slim.prompted import (
    Asked,
    Sides,
    answer,
    bound,
    choose_points,
    draw_prompts,
    mask_error,
    mask_inside,
)
from tests.unit.slim.tiny import build

SIZE = 64
CONFIG = MasksConfig(points=3, candidates=2, several=0.5)
SEEDS = [11, 12, 13, 14]  # of views of both kinds
SCALED = [(48, 64), (64, 40), (64, 64), (30, 64)]


def look(model: Any, views: int = 4, dtype: torch.dtype = torch.float64) -> Features:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(views, 3, SIZE, SIZE, generator=generator, dtype=dtype)
    with observe(model, residuals=False, bottlenecks=False) as seen, torch.no_grad():
        return seen.encode(pixels)


def pair(family: str = "sam") -> Sides:
    teacher, student = build(family), build(family, seed=1)
    return Sides(student, look(student), teacher, look(teacher))


def ask(sides: Sides, asked: Asked, scaled: list[tuple[int, int]] = SCALED) -> dict[str, Tensor]:
    return sides.compare(asked, mask_inside(scaled, 16, SIZE), SIZE)


def read(errors: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(error.detach()) for name, error in errors.items()}


def part(sides: Sides, rows: list[int]) -> Sides:
    def take(features: Features) -> Features:
        return Features(
            features.embedding[rows], intermediate=tuple(each[rows] for each in features.intermediate)
        )

    return Sides(sides.student, take(sides.ours), sides.teacher, take(sides.theirs))


def test_prompts_lie_on_the_photo_and_depend_on_their_own_seed_alone() -> None:
    seeds = [5, 6, 7, 8]
    asked = draw_prompts(seeds, SCALED, CONFIG)
    assert asked.places.shape == (4, 6, 2) and asked.chances.shape == (4, 6)
    assert asked.loosened.shape == (4, 3, 4) and float(asked.loosened.abs().max()) <= 0.03
    sides = torch.tensor([(wide, tall) for tall, wide in SCALED])
    assert (asked.places >= 0).all() and (asked.places < sides[:, None]).all()
    assert sorted([*asked.single.tolist(), *asked.several.tolist()]) == [0, 1, 2, 3]
    alone = draw_prompts([7], [SCALED[2]], CONFIG)
    for name in ("places", "chances", "loosened"):
        assert torch.equal(getattr(alone, name)[0], getattr(asked, name)[2])
    assert len(alone.several) == (2 in asked.several.tolist())
    # More points leave the first ones where they were.
    more = draw_prompts(seeds, SCALED, MasksConfig(points=5, candidates=2, several=0.5))
    assert torch.equal(more.places[:, :6], asked.places)


def test_points_in_small_masks_are_likelier_as_these_are_smaller() -> None:
    # Nine tenths of the points lie in a mask of nine tenths of the photo.
    generator = torch.Generator().manual_seed(0)
    shares = torch.where(torch.rand(4000, 8, generator=generator) < 0.9, 0.9, 0.1)
    chances = torch.rand(4000, 8, generator=generator)
    chosen = choose_points(shares, chances, 1)
    small = (shares.gather(1, chosen) == 0.1).float().mean()
    # With k of 8 in the small mask it is chosen with a chance of 9 k / (9 k + 8 - k).
    k = torch.arange(9.0)
    ways = torch.tensor([math.comb(8, int(each)) for each in k]) * 0.1**k * 0.9 ** (8 - k)
    assert float(small) == pytest.approx(float((ways * 9 * k / (8 + 8 * k)).sum()), abs=0.03)


def test_all_points_are_taken_where_there_are_no_more() -> None:
    chances = torch.tensor([[0.2, 0.0, 0.9]])
    assert sorted(choose_points(torch.tensor([[0.5, 0.0, 1.0]]), chances, 3)[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("several", "count"), [(0.0, 0), (1.0, 50)])
def test_the_share_of_views_that_are_asked_for_guesses(several: float, count: int) -> None:
    asked = draw_prompts(range(50), [(64, 64)] * 50, MasksConfig(several=several))
    assert len(asked.several) == count and len(asked.single) == 50 - count


def test_errors_are_zero_for_the_same_logits_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = torch.randn(2, 3, 1, 8, 8, generator=generator, dtype=torch.float64)
    inside = mask_inside([(64, 64), (32, 64)], 8, SIZE)
    assert torch.allclose(mask_error(theirs, theirs, inside), torch.zeros(2, 3, 1).double(), atol=1e-12)
    other = theirs.clone()
    other[1, :, :, 4:] += 5.0  # on the padding
    assert torch.equal(mask_error(other, theirs, inside), mask_error(theirs, theirs, inside))
    other[0, 1] += 1.0
    error = mask_error(other, theirs, inside)[..., 0]
    assert error[0, 1] > 0.1 and error.sum() == pytest.approx(float(error[0, 1]), abs=1e-9)


def test_the_error_of_a_mask_is_divergence_and_distance() -> None:
    ours, theirs = torch.tensor([0.3, -2.0]).double(), torch.tensor([1.5, -0.5]).double()
    p, q = ours.sigmoid(), theirs.sigmoid()
    divergence = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    apart = (p - q).abs().sum()
    distance = 2 * apart / ((p + q).sum() + apart + 1)
    found = mask_error(
        ours.view(1, 1, 1, 1, 2), theirs.view(1, 1, 1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
    )
    assert float(found) == pytest.approx(float(divergence / 2 + distance), rel=1e-12)


def test_of_two_equally_likely_masks_the_larger_is_learned() -> None:
    teacher = torch.full((2, 1, 1, 10, 10), -20.0)
    teacher[:, ..., :1, :] = 20.0
    teacher[0, ..., :9, :] = 20.0
    logits = torch.zeros(10, 10, requires_grad=True)
    inside = torch.ones(2, 10, 10, dtype=torch.bool)
    steps = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        steps.zero_grad()
        mask_error(logits.expand_as(teacher), teacher, inside).mean().backward()
        steps.step()
    assert torch.equal(logits > 0, teacher[0, 0, 0] > 0)


def test_boxes_lie_around_their_masks() -> None:
    masks = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    masks[0, 0, 2:5, 7:9] = True
    masks[0, 1, 15, 0] = True
    boxes, there = bound(masks, torch.zeros(1, 3, 4), SIZE)
    assert boxes[0].tolist() == [[28, 8, 36, 20], [0, 60, 4, 64], [0, 0, 64, 64]]
    assert there[0].tolist() == [1, 1, 0]
    loose = torch.tensor([0.5, -0.25, 0.25, 1.0]).expand(1, 3, 4)
    assert bound(masks, loose, SIZE)[0][0, 0].tolist() == [32, 5, 38, 32]
    assert bound(masks, loose, SIZE)[0][0, 1].tolist() == [2, 59, 5, 64]


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_a_student_that_is_its_teacher_makes_no_error(family: str) -> None:
    teacher = build(family)
    sides = Sides(teacher, look(teacher), teacher, look(teacher))
    errors = read(ask(sides, draw_prompts(SEEDS, SCALED, CONFIG)))
    assert errors == pytest.approx({"masks": 0.0, "scores": 0.0}, abs=1e-12)


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_each_view_counts_alike_whatever_it_comes_with(family: str) -> None:
    sides = pair(family)
    asked = draw_prompts(SEEDS, SCALED, CONFIG)
    assert len(asked.single) and len(asked.several)
    alone = [
        read(ask(part(sides, [row]), draw_prompts([SEEDS[row]], [SCALED[row]], CONFIG), [SCALED[row]]))
        for row in range(4)
    ]
    for name, value in read(ask(sides, asked)).items():
        assert value > 0 and value == pytest.approx(sum(each[name] for each in alone) / 4, rel=1e-10)


def test_the_masks_are_those_that_the_model_gives() -> None:
    sides = pair()
    asked = draw_prompts([3, 4, 5, 6], SCALED, MasksConfig(points=2, candidates=1, several=1.0))
    rows = torch.arange(4)
    given = {"input_points": asked.places[:, :, None]}
    ours, theirs = (
        answer(*side, rows, given, several=True)
        for side in ((sides.student, sides.ours), (sides.teacher, sides.theirs))
    )
    assert ours[0].shape == (4, 2, 3, 16, 16) and ours[1].shape == (4, 2, 3)
    wanted = mask_error(ours[0], theirs[0], mask_inside(SCALED, 16, SIZE)).mean()
    scores = (ours[1] - theirs[1]).square().mean()
    assert read(ask(sides, asked)) == pytest.approx(read({"masks": wanted, "scores": scores}), rel=1e-12)


def test_prompts_stay_exact_where_encoders_compute_in_bfloat16() -> None:
    model = build("sam").float()
    features = look(model, 1, torch.float32)
    rounded = Features(features.embedding.bfloat16())
    rows, apart = torch.arange(1), torch.tensor([[[[33.0, 17.0]], [[33.05, 17.05]]]])
    with torch.no_grad():
        one, other = answer(model, rounded, rows, {"input_points": apart}, several=False)[0][0]
    assert not torch.equal(one, other), "a twentieth of a pixel is less than bfloat16 tells apart"


def test_single_masks_are_of_points_and_of_the_boxes_around_them() -> None:
    sides, inside = pair(), mask_inside(SCALED, 16, SIZE)
    asked = draw_prompts([3, 4, 5, 6], SCALED, MasksConfig(points=2, candidates=1, several=0.0))
    rows = torch.arange(4)
    given = {"input_points": asked.places[:, :, None]}
    with torch.no_grad():
        found = answer(sides.teacher, sides.theirs, rows, given, several=False)[0]
        boxes, some = bound((found[:, :, 0] > 0) & inside[:, None], asked.loosened, SIZE)
        errors = []
        for prompt in (given, {"input_boxes": boxes}):
            ours = answer(sides.student, sides.ours, rows, prompt, several=False)[0]
            theirs = answer(sides.teacher, sides.theirs, rows, prompt, several=False)[0]
            errors.append(mask_error(ours, theirs, inside)[:, :, 0])
    weight = torch.cat([torch.ones(4, 2), some], 1)
    wanted = ((torch.cat(errors, 1) * weight).sum(1) / weight.sum(1)).mean()
    assert read(ask(sides, asked))["masks"] == pytest.approx(float(wanted), rel=1e-9)


def test_only_the_student_is_to_learn() -> None:
    sides = pair()
    errors = ask(sides, draw_prompts(SEEDS, SCALED, CONFIG))
    (errors["masks"] + errors["scores"]).backward()
    decoder = dict(sides.student.mask_decoder.named_parameters())
    still = [name for name, each in decoder.items() if each.grad is None or not each.grad.any()]
    assert not still
    assert all(each.grad is None for each in sides.teacher.parameters())


def test_pixels_of_masks_that_lie_on_the_photo() -> None:
    inside = mask_inside([(64, 64), (33, 10)], 16, SIZE)
    assert inside[0].all()
    assert inside[1].sum(0).tolist() == [8, 8, *[0] * 14] and inside[1].sum(1).tolist() == [2] * 8 + [0] * 8


@pytest.mark.parametrize("scaled", [(1, 64), (64, 1)])
def test_a_photo_thinner_than_a_pixel_of_masks_has_some(scaled: tuple[int, int]) -> None:
    (inside,) = mask_inside([scaled], 16, SIZE)
    assert inside.sum() == 16 and inside[0, 0]
