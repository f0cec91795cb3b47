"""Aligning learns, resumes to the last bit, and changes the encoder alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.errors import DataError, DivergedError, MismatchError
from aerogel.slim.alignment import align, batch_photos
from aerogel.slim.checkpoint import read_epochs
from aerogel.slim.features import observe
from aerogel.slim.lesson import Lesson, Phase
from aerogel.slim.surgery import apply_plan
from aerogel.zoo.decode import PictureError
from aerogel.zoo.photos import Photo
from tests.unit.slim.lessons import CONFIG, MASKS, PHASES, Pictures, losses, make, run, weights
from tests.unit.slim.tiny import build, draw_plan, segment

STEPS = 9  # three epochs of three batches
# All that a checkpoint has to keep, and views of chance.
RESUMED = replace(CONFIG, optimiser="adamw", weight_decay=0.1, ema=0.9, augment="flip", clip=1.0)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Phase], Any]:
    """Return what gives the weights, losses and epochs of a run that nobody stopped."""

    @cache
    def give(phase: Phase) -> Any:
        made, work = make(phase), tmp_path_factory.mktemp(phase)
        found = losses(run(made, work, RESUMED))
        return weights(made[0]), found, read_epochs(work / "checkpoint")

    return give


@pytest.mark.parametrize("phase", ["bottleneck", "embedding", "output"])
def test_two_photos_are_learnt_by_heart(phase: Phase, tmp_path: Path) -> None:
    made = make(phase, dtype=torch.float32)
    # With random weights the model before is so far from the teacher that their outputs pull apart; relative
    # to their sizes that is hundreds of times what the residual stream is off by.
    config = replace(
        CONFIG,
        epochs=90,
        lr=1.7e-2,  # of weights whose size is 0.3
        weight_epochs=45,
        weighting="constant",
        relative=phase != "embedding",
        checkpoint_blocks=False,
    )
    states = run(made, tmp_path, config, photos=Pictures(2), save_steps=1000)
    factor = 6 if phase == "embedding" else 50
    assert states[-1].terms["output"] < states[0].terms["output"] / factor
    for name in set(states[0].terms) - {"output", "before_output"}:
        values = [state.terms[name] for state in states if name in state.terms]
        assert len(values) == 45 and values[-1] < values[0] / 4, name


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_step_descends_the_loss_of_the_phase(phase: Phase, family: str, tmp_path: Path) -> None:
    made = make(phase, family)
    first = run(made, tmp_path, stop=1)[0]
    terms = {
        "bottleneck": {"window_qkv", "global_qkv", "hidden", "output"},
        "embedding": {"residuals", "before_output", "output"},
        "output": {"output"},
        "masks": {"output", "masks", "scores"},
    }[phase]
    details = {"details", *({"before_details"} if phase == "embedding" else ())}
    assert set(first.terms) == (terms | details if family == "sam_hq" else terms)
    assert first.step == 1 and first.steps == STEPS and first.epoch == 0 and first.seconds > 0


def test_the_weights_of_the_features_follow_the_epochs(tmp_path: Path) -> None:
    student, lesson = make("embedding")
    assert [lesson.weigh(epoch, CONFIG) for epoch in range(3)] == [0.5, 0.0, 0.0]
    states = run((student, lesson), tmp_path)
    assert ["residuals" in state.terms for state in states] == [True] * 3 + [False] * 6
    assert [state.epoch for state in states] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    first = states[0]
    wanted = 0.5 * (first.terms["residuals"] + first.terms["before_output"]) + 0.5 * first.terms["output"]
    assert first.loss == pytest.approx(wanted)
    assert states[-1].loss == pytest.approx(states[-1].terms["output"])


@pytest.mark.parametrize(
    ("stop", "save_steps", "phase"),
    [
        (2, 1, "bottleneck"),
        (5, 2, "bottleneck"),
        (3, None, "bottleneck"),
        (4, 1, "embedding"),
        (7, 6, "embedding"),
        (8, 3, "output"),
        (5, 2, "masks"),
    ],
)
def test_a_run_resumes_to_the_last_bit(
    stop: int, save_steps: int | None, phase: Phase, tmp_path: Path, whole_run: Callable[[Phase], Any]
) -> None:
    whole, wanted, epochs = whole_run(phase)
    run(make(phase), tmp_path, RESUMED, stop=stop, save_steps=save_steps)
    again = make(phase)
    found = losses(run(again, tmp_path, RESUMED))
    # The abandoned step is not saved; where nothing was, the run begins anew.
    saved = 0 if save_steps is None else (stop - 1) // save_steps * save_steps
    assert min(found) == saved + 1 and max(found) == STEPS
    assert found == {step: wanted[step] for step in found}
    assert all(torch.equal(whole[name], each) for name, each in weights(again[0]).items())
    assert read_epochs(tmp_path / "checkpoint") == epochs


@dataclass
class Failing(Pictures):
    """Photos of which number 3 cannot be read a second time."""

    read: bool = False

    def __getitem__(self, index: int) -> Photo:
        if index == 3:
            if self.read:
                raise PictureError("gone")
            self.read = True
        return super().__getitem__(index)


def test_a_run_that_fails_within_a_step_resumes(tmp_path: Path, whole_run: Callable[[Phase], Any]) -> None:
    whole, wanted, _ = whole_run("embedding")
    made = make("embedding")
    modes = [module.training for module in made[0].modules()]
    with pytest.raises(PictureError, match="gone"):
        run(made, tmp_path, RESUMED, photos=Failing(), save_steps=1)
    assert modes == [module.training for module in made[0].modules()]
    again = make("embedding")
    found = losses(run(again, tmp_path, RESUMED))
    first, second = (batch_photos(0, epoch, 5, RESUMED.batch_size) for epoch in (0, 1))
    failed = len(first) + next(place for place, batch in enumerate(second) if 3 in batch) + 1
    assert found == {step: wanted[step] for step in range(failed, STEPS + 1)}
    assert all(torch.equal(whole[name], each) for name, each in weights(again[0]).items())


def test_a_run_that_is_over_gives_its_weights_and_no_steps(tmp_path: Path) -> None:
    first, second = make("output"), make("output")
    states = run(first, tmp_path)
    assert run(second, tmp_path) == []
    assert all(torch.equal(weights(first[0])[name], each) for name, each in weights(second[0]).items())
    epochs = read_epochs(tmp_path / "checkpoint")
    assert epochs == [state.epoch_means for state in states if state.epoch_means is not None]
    assert len(epochs) == 3
    # Batches of 2, 2 and 1 photos.
    wanted = sum(state.loss * count for state, count in zip(states[:3], (2, 2, 1), strict=True)) / 5
    assert epochs[0]["loss"] == pytest.approx(wanted, rel=1e-12)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(make("output"), tmp_path, stop=2, save_steps=1)
    changes: tuple[dict[str, Any], ...] = ({"lr": 2e-3}, {"epochs": 4}, {"mask_padding": "none"})
    for change in changes:
        with pytest.raises(MismatchError, match=f"config.{next(iter(change))}"):
            run(make("output"), tmp_path, replace(CONFIG, **change))
    with pytest.raises(MismatchError, match="seed"):
        run(make("output"), tmp_path, seed=1)
    with pytest.raises(MismatchError, match="photos"):
        run(make("output"), tmp_path, photos=Pictures(6))
    with pytest.raises(MismatchError, match="student"):
        run(make("embedding"), tmp_path)
    made = make("masks")
    run(made, tmp_path / "masks", stop=2, save_steps=1)
    other = replace(made[1], masks=replace(MASKS, points=3))
    with pytest.raises(MismatchError, match=r"masks\.points"):
        run((make("masks")[0], other), tmp_path / "masks")


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_only_the_encoder_changes(family: str, tmp_path: Path) -> None:
    student, lesson = make("embedding", family)
    models = (student, lesson.teacher, lesson.before)
    modes = [[module.training for module in each.modules()] for each in models]
    student.mask_decoder.requires_grad_(False)
    next(student.vision_encoder.parameters()).requires_grad_(False)
    needs = [each.requires_grad for each in student.parameters()]
    before = [weights(each) for each in models]
    run((student, lesson), tmp_path)
    assert needs == [each.requires_grad for each in student.parameters()]
    assert modes == [[module.training for module in each.modules()] for each in models]
    assert all(each.grad is None for model in models for each in model.parameters())
    for name, value in weights(student).items():
        assert torch.equal(value, before[0][name]) != name.startswith("vision_encoder."), name
    for model, earlier in zip(models[1:], before[1:], strict=True):
        assert all(torch.equal(value, earlier[name]) for name, value in weights(model).items())


@pytest.mark.parametrize("phase", ["bottleneck", "embedding", "masks"])
def test_recomputed_blocks_learn_the_same(phase: Phase, tmp_path: Path) -> None:
    made = [make(phase) for _ in range(2)]
    found = [
        losses(run(each, tmp_path / str(flag), replace(CONFIG, checkpoint_blocks=flag)))
        for each, flag in zip(made, (False, True), strict=True)
    ]
    for step in found[0]:
        assert found[1][step][0] == pytest.approx(found[0][step][0], rel=1e-9)


@pytest.mark.parametrize("phase", ["bottleneck", "masks"])
def test_parts_of_a_batch_learn_what_the_batch_does(phase: Phase, tmp_path: Path) -> None:
    config = replace(CONFIG, batch_size=3)
    made = [make(phase) for _ in range(2)]
    found = [
        losses(run(each, tmp_path / str(parts), replace(config, accumulate=parts)))
        for each, parts in zip(made, (1, 2), strict=True)
    ]
    for step in found[0]:
        assert found[1][step][0] == pytest.approx(found[0][step][0], rel=1e-9)


def test_the_teachers_masks_are_learnt(tmp_path: Path) -> None:
    made = make("masks", dtype=torch.float32)
    lesson = replace(made[1], masks=replace(MASKS, decoder_lr=1.7e-2))
    config = replace(CONFIG, epochs=90, lr=1.7e-2, checkpoint_blocks=False)
    states = run((made[0], lesson), tmp_path, config, photos=Pictures(2), save_steps=1000)
    # The distance of masks is linear in what they differ by, the error of scores is its square.
    for name, share in (("masks", 5), ("scores", 50)):
        values = [state.terms[name] for state in states]
        assert sum(values[-9:]) < sum(values[:9]) / share, name


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("rate", [0.0, 2e-3])
def test_masks_teach_the_decoder_at_its_own_rate(family: str, rate: float, tmp_path: Path) -> None:
    student, lesson = make("masks", family)
    before = [weights(each) for each in (student, lesson.teacher)]
    given = (student, replace(lesson, masks=replace(MASKS, decoder_lr=rate)))
    run(given, tmp_path, replace(CONFIG, schedule="constant", relative_steps=False), stop=1)
    for name, value in weights(student).items():
        moved = float((value - before[0][name]).abs().max())
        wanted = {"vision_encoder": 1e-3, "mask_decoder": rate}.get(name.partition(".")[0], 0.0)
        # Adam's first step is as large as the rate, but for what this batch did not ask or no logit shows.
        idle = "mask_decoder" in name and (moved == 0.0 or "k_proj.bias" in name)
        assert idle or moved == pytest.approx(wanted, rel=1e-2), name
    assert all(torch.equal(value, before[1][name]) for name, value in weights(lesson.teacher).items())


@pytest.mark.parametrize("relative", [True, False])
def test_steps_are_as_large_as_the_weights_ask_for(relative: bool, tmp_path: Path) -> None:
    made = make("output")
    encoder: Any = made[0].vision_encoder
    with torch.no_grad():
        encoder.layers[0].mlp.lin1.weight *= 100.0
        encoder.layers[1].mlp.lin2.bias.zero_()
    before = {name: each.detach().clone() for name, each in encoder.named_parameters()}
    config = replace(CONFIG, lr=1e-3, warmup=0.0, schedule="constant", relative_steps=relative)
    next(align(*made, Pictures(), config, seed=0, device="cpu", work=tmp_path))
    for name, each in encoder.named_parameters():
        # Adam's first step is as large as the rate, but where its derivative is next to nothing.
        size = max(float(before[name].square().mean().sqrt()), 1e-3) if relative else 1.0
        assert float((each.detach() - before[name]).abs().max()) == pytest.approx(1e-3 * size, rel=1e-2), name


def test_the_moving_average_is_that_of_the_steps(tmp_path: Path) -> None:
    config = replace(CONFIG, ema=0.9)
    plain, averaged = make("output"), make("output")
    loop = align(*plain, Pictures(), CONFIG, seed=0, device="cpu", work=tmp_path / "plain")
    name = "vision_encoder.neck.conv1.weight"
    wanted = plain[0].get_parameter(name).detach().clone()
    for index, _ in enumerate(loop):
        decay = min(0.9, (1 + index) / (10 + index))
        wanted = decay * wanted + (1 - decay) * plain[0].get_parameter(name).detach()
    run(averaged, tmp_path / "averaged", config)
    assert torch.allclose(averaged[0].get_parameter(name), wanted, rtol=1e-12)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    found = batch_photos(3, 1, 11, 4)
    assert [len(each) for each in found] == [4, 4, 3]
    assert sorted(np.concatenate(found).tolist()) == list(range(11))
    assert not np.array_equal(np.concatenate(found), np.concatenate(batch_photos(3, 2, 11, 4)))
    assert all(np.array_equal(*each) for each in zip(found, batch_photos(3, 1, 11, 4), strict=True))


def test_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    student, lesson = make("output")
    with pytest.raises(MismatchError, match="a model from before"):
        Lesson("embedding", lesson.teacher)
    with pytest.raises(MismatchError, match="a model from before"):
        Lesson("output", lesson.teacher, student)
    with pytest.raises(MismatchError, match="settings of masks"):
        Lesson("masks", lesson.teacher)
    with pytest.raises(MismatchError, match="settings of masks"):
        Lesson("output", lesson.teacher, masks=MASKS)
    bare = Lesson("masks", lesson.teacher.vision_encoder, masks=MASKS)
    with pytest.raises(MismatchError, match="a model with a mask decoder"):
        run((student.vision_encoder, bare), tmp_path)
    with pytest.raises(MismatchError, match="the model that the student was pruned from"):
        run((student, Lesson("output", build(output_channels=16))), tmp_path)
    with pytest.raises(MismatchError, match="the model that the student was pruned from"):
        run((build("sam_hq"), Lesson("output", build("sam_hq").vision_encoder)), tmp_path)
    with pytest.raises(DataError, match="photos to learn from"):
        run((student, lesson), tmp_path, photos=Pictures(0))
    with pytest.raises(DataError, match="float32"):
        run((student.to(torch.bfloat16), lesson), tmp_path)
    narrow = apply_plan(lesson.teacher, draw_plan(lesson.teacher, {"mlp": 9}))
    with pytest.raises(MismatchError, match="same shape"):
        run((narrow, Lesson("bottleneck", lesson.teacher)), tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    student, lesson = make("output")
    with torch.no_grad():
        student.vision_encoder.neck.conv1.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"align\.lr"):
        run((student, lesson), tmp_path)


def test_bare_encoders_are_aligned(tmp_path: Path) -> None:
    student, lesson = make("embedding")
    whole = losses(run((student, lesson), tmp_path / "whole"))
    second, again = make("embedding")
    assert again.before is not None
    bare: Any = Lesson("embedding", again.teacher.vision_encoder, again.before.vision_encoder)
    assert losses(run((second.vision_encoder, bare), tmp_path / "bare")) == whole
    assert torch.equal(segment(second), segment(student))


def test_low_precision_computes_near_the_same(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    found = [
        losses(run(make("bottleneck", dtype=torch.float32), tmp_path / kind, replace(config, dtype=kind)))
        for kind in ("float32", "bfloat16")
    ]
    for step in found[0]:
        assert found[1][step][0] == pytest.approx(found[0][step][0], rel=0.1)
        assert found[1][step][0] != found[0][step][0]


def test_callers_may_watch_the_student_between_steps(tmp_path: Path) -> None:
    plain, watched = make("bottleneck"), make("bottleneck")
    wanted = losses(run(plain, tmp_path / "plain"))
    student, lesson = watched
    states = []
    for state in align(student, lesson, Pictures(), CONFIG, seed=0, device="cpu", work=tmp_path / "watched"):
        states.append(state)
        segment(student)
        with observe(student) as seen, torch.no_grad():
            seen.encode(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert losses(states) == wanted
