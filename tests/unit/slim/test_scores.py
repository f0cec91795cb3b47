from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from aerogel.errors import DataError, MismatchError
from aerogel.slim.scores import Evaluation, Scores, compare

IMAGES = tuple(f"{image}.jpg" for image in range(10) for _ in range(4))


def evaluation(model: str = "teacher", shift: float = 0.0, seed: int = 0) -> Evaluation:
    """Make 40 scores of 10 images that share their image's difficulty."""
    generator = np.random.default_rng(seed)
    scores = np.repeat(generator.uniform(0.3, 0.9, 10), 4) + generator.normal(0, 0.02, 40) + shift
    iou = tuple(scores.tolist())
    filled = tuple([0.5] * 40)
    rows = (
        Scores("filled box", "box", "truth", filled, filled),
        Scores("model", "point", "truth", iou, tuple((0.8 * scores).tolist())),
        Scores("model", "box", "teacher", iou),
    )
    return Evaluation(model, IMAGES, tuple(map(str, range(40))), rows, seed=3)


def test_rows_are_found_by_name() -> None:
    found = evaluation()
    assert found.row("point").title == "one point"
    assert found.row("box", "teacher").title == "box, against the teacher"
    assert found.row("box", predictor="filled box").title == "filled box (no model)"
    with pytest.raises(DataError, match=r"scores of model, centre, truth.*one point"):
        found.row("centre")
    with pytest.raises(DataError, match="boundary=True"):
        found.interval(found.row("box", "teacher"), "boundary_iou")


def test_the_table_shows_each_row_with_its_interval() -> None:
    table = evaluation().table()
    assert table.title == "teacher: 40 objects of 10 images"
    names = [each.name for each in table.measurements]
    assert names == [
        "mIoU, filled box (no model)",
        "boundary IoU, filled box (no model)",
        "mIoU, one point",
        "boundary IoU, one point",
        "mIoU, box, against the teacher",
    ]
    first = table.measurements[0]
    assert (first.value, first.spread, first.samples) == (50.0, 0.0, 40)
    assert "10 images" in str(table)


def test_one_image_has_no_interval() -> None:
    row = Scores("model", "box", "truth", (0.5, 1.0))
    found = Evaluation("m", ("a", "a"), ("0", "1"), (row,))
    (only,) = found.table().measurements
    assert (only.value, only.spread, only.note) == (75.0, None, "one image: no interval")
    assert found.to_dict()["rows"][0]["iou"] == {"mean": 0.75}


def test_json_and_back() -> None:
    found = evaluation()
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Evaluation.from_dict(data) == found
    assert (data["image_count"], data["object_count"]) == (10, 40)
    point = data["rows"][1]
    assert point["iou"]["by_object"]["value"] == pytest.approx(np.mean(found.rows[1].iou))
    assert point["iou"]["by_image"]["groups"] == 10
    short = found.to_dict(per_object=False)
    assert "images" not in short and "scores" not in short["rows"][0]
    with pytest.raises(DataError, match="per_object=True"):
        Evaluation.from_dict(short)
    data["rows"][0]["scores"]["iou"].pop()
    with pytest.raises(DataError, match="a score for each object"):
        Evaluation.from_dict(data)


def test_pairs_tell_what_single_intervals_do_not() -> None:
    teacher, student = evaluation(), evaluation("student", shift=-0.01)
    found = compare(student, teacher)
    assert [row.title for row in found.rows] == ["one point", "one point", "box, against the teacher"]
    first = found.rows[0]
    assert first.difference.value == pytest.approx(-0.01)
    assert first.difference.excludes_zero
    assert first.kept is not None
    assert first.kept.value == pytest.approx(1 - 0.01 / np.mean(teacher.rows[1].iou))
    ours, theirs = student.interval(student.rows[1]), teacher.interval(teacher.rows[1])
    assert ours.high > theirs.low
    names = [each.name for each in found.table().measurements]
    assert names[:2] == ["difference in mIoU, one point", "kept of mIoU, one point"]
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["excludes_zero"] is True
    by_image = compare(student, teacher, weight="group").rows[0].difference
    assert by_image.value == pytest.approx(-0.01)


def test_a_reference_of_zeros_keeps_no_share() -> None:
    zero = Scores("model", "point", "truth", (0.0,) * 40)
    reference = replace(evaluation(), rows=(zero,))
    (row,) = compare(evaluation("student"), reference).rows
    assert row.kept is None
    assert "kept" not in str(compare(evaluation("student"), reference).table())


def test_what_does_not_pair_is_refused() -> None:
    found = evaluation()
    for other in (
        replace(found, seed=4),
        replace(found, points=2),
        replace(found, objects=found.objects[::-1]),
        replace(found, images=found.images[::-1]),
    ):
        with pytest.raises(MismatchError, match="same objects and prompts"):
            compare(found, other)
    with pytest.raises(MismatchError, match="a row in common"):
        compare(found, replace(found, rows=found.rows[:1]))
