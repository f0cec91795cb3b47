from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.errors import ConfigError, DataError
from aerogel.measure.masks import boundary_iou, fill_boxes, mask_iou
from aerogel.slim.canvas import Canvas
from aerogel.slim.evaluation import evaluate
from aerogel.slim.prompts import make_prompts
from aerogel.slim.scores import Evaluation, compare
from aerogel.slim.segmenter import Segmenter
from aerogel.zoo.objects import SegmentedPhoto
from tests.unit.slim.stand_ins import Oracle, one_mask, rectangles, tiny_sam


def knowing(photo: SegmentedPhoto) -> Oracle:
    """Answer a point with the object that it lies in, a box with the object that has it."""
    masks = photo.masks()

    def answer(kind: str, prompt: np.ndarray) -> np.ndarray:
        if kind == "point":
            x, y = prompt.round().astype(int)
            return masks[masks[:, y, x].argmax()]
        return masks[np.abs(photo.boxes - prompt).sum(axis=1).argmin()]

    return Oracle(answer)


def boxing(kind: str, prompt: np.ndarray) -> np.ndarray:
    return fill_boxes(prompt[None].astype(np.float64), (64, 64))[0].numpy()


def test_who_knows_the_masks_scores_one_and_the_box_scores_what_it_covers() -> None:
    photo = rectangles(count=4)
    model = knowing(photo)
    found = evaluate(model, [photo], chunk=3, name="oracle")
    assert found.model == "oracle"
    assert found.objects == photo.objects
    assert set(found.images) == {"photo:0"}
    for kind in ("point", "centre", "box"):
        assert found.row(kind).iou == (1.0,) * len(photo)
        assert found.row(kind).boundary_iou == (1.0,) * len(photo)
    areas = (photo.boxes[:, 2] - photo.boxes[:, 0]) * (photo.boxes[:, 3] - photo.boxes[:, 1])
    control = found.row("box", predictor="filled box")
    assert np.allclose(control.iou, photo.areas / areas)
    assert min(control.iou) < 1.0
    assert found.rows[0] == control


def test_each_photo_is_encoded_once_and_objects_are_asked_in_parts() -> None:
    photo = rectangles(count=3)
    model = knowing(photo)
    evaluate(model, [photo], chunk=2)
    assert model.encoded == 1
    assert model.asked == [("point", 2), ("point", 2), ("box", 2), ("point", 1), ("point", 1), ("box", 1)]


def test_a_model_that_fills_boxes_scores_as_the_control() -> None:
    photos = [rectangles(seed, size=(64, 64)) for seed in range(3)]
    found = evaluate(Oracle(boxing), photos, prompts=("box",))
    control = found.row("box", predictor="filled box")
    assert found.row("box").iou == control.iou
    assert found.row("box").boundary_iou == control.boundary_iou


def test_scores_are_those_of_doing_it_by_hand() -> None:
    """A random SamModel on photos of another size and shape than its canvas, one object at a time."""
    model, teacher = tiny_sam(0), tiny_sam(1)
    photos = [rectangles(seed, size=size) for seed, size in enumerate([(50, 90), (80, 41)])]
    found = evaluate(model, photos, teacher=teacher, seed=5, chunk=2)
    place = 0
    for photo in photos:
        encoded, taught = (Segmenter(m, Canvas(64)).encode(photo.image) for m in (model, teacher))
        for row in range(len(photo)):
            mask = photo.masks([row])
            for kind in ("point", "centre", "box"):
                prompt = make_prompts(photo, kind, [row], mask, seed=5)
                ours, theirs = encoded.segment(kind, prompt), taught.segment(kind, prompt)
                scores = found.row(kind)
                assert scores.iou[place] == mask_iou(ours, mask).item()
                assert scores.boundary_iou is not None
                assert scores.boundary_iou[place] == boundary_iou(ours, mask).item()
                assert found.row(kind, "teacher").iou[place] == mask_iou(ours, theirs).item()
                filled = fill_boxes(photo.boxes[[row]], photo.size)
                if kind == "box":
                    control = found.row("box", "teacher", "filled box")
                    assert control.iou[place] == mask_iou(filled, theirs).item()
            place += 1
    assert place == len(found.objects)
    assert 0.0 < np.mean(found.row("point").iou) < 1.0


def test_chunks_and_other_photos_change_nothing() -> None:
    model = tiny_sam()
    photos = [rectangles(0), rectangles(1)]
    whole = evaluate(model, photos)
    assert evaluate(model, photos, chunk=1) == whole
    alone = evaluate(model, photos[1:])
    assert alone.row("point").iou == whole.row("point").iou[len(photos[0]) :]
    assert evaluate(model, photos, seed=1).row("point") != whole.row("point")
    assert evaluate(model, photos, seed=1).row("centre") == whole.row("centre")


def test_several_points_are_the_mean_of_each() -> None:
    model, teacher = tiny_sam(0), tiny_sam(1)
    photo = rectangles(0)
    found = evaluate(model, [photo, rectangles(1)], teacher=teacher, points=3, chunk=2)
    encoded, taught = (Segmenter(m, Canvas(64)).encode(photo.image) for m in (model, teacher))
    masks, rows = photo.masks(), range(len(photo))
    turns = [make_prompts(photo, "point", rows, masks, turn=turn) for turn in range(3)]
    ours, theirs = ([each.segment("point", turn) for turn in turns] for each in (encoded, taught))
    scores = found.row("point")
    assert scores.iou[: len(photo)] == approx_mean(mask_iou(each, masks) for each in ours)
    assert scores.boundary_iou is not None
    assert scores.boundary_iou[: len(photo)] == approx_mean(boundary_iou(each, masks) for each in ours)
    alike = [mask_iou(one, other) for one, other in zip(ours, theirs, strict=True)]
    assert found.row("point", "teacher").iou[: len(photo)] == approx_mean(alike)
    once = evaluate(model, [photo, rectangles(1)], teacher=teacher, chunk=2)
    assert found.row("box") == once.row("box") and found.row("point") != once.row("point")
    assert Evaluation.from_dict(found.to_dict()) == found


def approx_mean(scores: Iterable[torch.Tensor]) -> Any:
    """Return what equals the mean over turns of the scores of each object, to rounding."""
    return pytest.approx(torch.stack(list(scores)).mean(0).tolist())


def test_a_model_is_its_own_teacher_and_equals_itself() -> None:
    model = tiny_sam().train()
    photos = [rectangles(0), rectangles(1)]
    found = evaluate(model, photos, prompts=("box",), teacher=model)
    assert set(found.row("box", "teacher").iou) == {1.0}
    assert model.training
    assert all(row.difference.value == 0 for row in compare(found, found).rows)


def test_stored_points_and_no_boundaries() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:50] = True
    photo = one_mask(mask, point=(31.0, 11.0))
    found = evaluate(knowing(photo), [photo], prompts=("stored",), boundary=False)
    assert found.row("stored").iou == (1.0,)
    assert found.row("stored").boundary_iou is None
    with pytest.raises(DataError, match="points stored"):
        evaluate(knowing(photo), [rectangles()], prompts=("stored",))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": ("center",)}, "did you mean 'centre'"),
        ({"prompts": ()}, "prompts among"),
        ({"prompts": "box"}, "prompts among"),
        ({"prompts": ("box", "box")}, "each once"),
        ({"chunk": 0}, "a chunk"),
        ({"points": 0}, "at least 1 point"),
    ],
)
def test_bad_arguments_are_refused_before_work(options: dict[str, Any], words: str) -> None:
    model = Oracle(boxing)
    with pytest.raises(ConfigError, match=words):
        evaluate(model, [rectangles()], **options)
    assert model.encoded == 0


def test_bad_photos_and_models_are_refused() -> None:
    with pytest.raises(DataError, match="at least one object"):
        evaluate(Oracle(boxing), [])
    with pytest.raises(DataError, match="photo:0 twice"):
        evaluate(Oracle(boxing), [rectangles(), rectangles()], prompts=("box",))
    with pytest.raises(DataError, match="image size"):
        evaluate(torch.nn.Linear(1, 1), [rectangles()])


def test_a_model_without_a_configuration_takes_a_canvas() -> None:
    photo = rectangles(size=(64, 64))
    model = Oracle(boxing)
    del model.config
    found = evaluate(
        model, [photo], canvas=Canvas(64), teacher=model, teacher_canvas=Canvas(64), prompts=("box",)
    )
    assert set(found.row("box", "teacher").iou) == {1.0}
