"""Graphs are held against torch, and what is wrong with them shows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from aerogel.errors import DataError, IntegrityError, MismatchError
from aerogel.export import Difference, Exported, Parity, check_parity, parity
from aerogel.export.parity import count_attention, measure_parity
from aerogel.measure import Table
from tests.unit.export.running import run
from tests.unit.slim import tiny
from tests.unit.slim.stand_ins import tiny_sam

SIDE = 64


def apart(found: Any, expected: torch.Tensor) -> float:
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found - expected.numpy()).max() / expected.std())


@pytest.mark.parametrize(("photos", "prompts", "points"), [(1, 1, 1), (3, 1, 5), (2, 4, 3), (4, 2, 1)])
@pytest.mark.parametrize(("suffix", "bound"), [("", 1e-4), ("_fp16", 0.03)])
def test_points_of_any_number(
    exported: Exported, model: Any, suffix: str, bound: float, photos: int, prompts: int, points: int
) -> None:
    generator = torch.Generator().manual_seed(points)
    pixels = torch.randn(photos, 3, SIDE, SIDE, generator=generator)
    places = torch.rand(photos, prompts, points, 2, generator=generator) * SIDE
    labels = torch.randint(-1, 2, (photos, prompts, points), generator=generator)
    labels[:, -1, points - 1 :] = -10
    with torch.no_grad():
        expected = model(pixels, input_points=places, input_labels=labels)
    folder = exported.folder / "onnx"
    embeddings, positions = map(
        torch.from_numpy, run(folder / f"vision_encoder{suffix}.onnx", pixel_values=pixels)
    )
    scores, masks = run(
        folder / f"prompt_encoder_mask_decoder{suffix}.onnx",
        input_points=places,
        input_labels=labels,
        image_embeddings=embeddings,
        image_positional_embeddings=positions,
    )
    assert apart(masks, expected.pred_masks) < bound
    assert apart(scores, expected.iou_scores) < bound


@pytest.mark.parametrize(("photos", "boxes"), [(1, 1), (3, 2), (2, 5)])
def test_boxes_are_those_of_torch(exported: Exported, model: Any, photos: int, boxes: int) -> None:
    generator = torch.Generator().manual_seed(boxes)
    pixels = torch.randn(photos, 3, SIDE, SIDE, generator=generator)
    corners = (torch.rand(photos, boxes, 2, 2, generator=generator).sort(dim=2).values * SIDE).flatten(2)
    with torch.no_grad():
        expected = model(pixels, input_boxes=corners)
        as_points = model(
            pixels,
            input_points=corners.unflatten(2, (2, 2)),
            input_labels=torch.ones(photos, boxes, 2, dtype=torch.long),
        )
    folder = exported.folder / "onnx-boxes"
    embeddings, positions = map(torch.from_numpy, run(folder / "vision_encoder.onnx", pixel_values=pixels))
    scores, masks = run(
        folder / "prompt_encoder_mask_decoder.onnx",
        input_boxes=corners,
        image_embeddings=embeddings,
        image_positional_embeddings=positions,
    )
    assert apart(masks, expected.pred_masks) < 1e-4
    assert apart(scores, expected.iou_scores) < 1e-4
    assert apart(masks, as_points.pred_masks) > 1e-2, "a box is no pair of points"


def test_formats_differ_as_much_as_their_digits(exported: Exported) -> None:
    whole, half, eight = (exported.parity.find_worst(name).share for name in ("fp32", "fp16", "q8"))
    assert 0 < whole < 1e-4
    assert 1e-4 < half < 0.02
    assert 0.02 < eight < 0.5
    means = {
        (each.variant, each.output): each.mean / each.spread
        for each in exported.parity.differences
        if each.graph != "encoder" or each.output == "image_embeddings"
    }
    assert max(mean for (variant, _), mean in means.items() if variant == "fp16") < 0.005
    assert max(mean for (variant, _), mean in means.items() if variant == "q8") < 0.1


def test_every_output_of_every_graph_is_there(exported: Exported) -> None:
    found = {(each.variant, each.graph, each.output) for each in exported.parity.differences}
    encoded, decoded = ("image_embeddings", "image_positional_embeddings"), ("iou_scores", "pred_masks")
    assert found == {
        (variant, graph, output)
        for variant in ("fp32", "fp16", "q8")
        for graph, outputs in (("encoder", encoded), ("points", decoded), ("boxes", decoded))
        for output in outputs
    }
    assert all(each.masks == 27 for each in exported.parity.agreements)
    assert {each.iou for each in exported.parity.agreements if each.variant == "fp32"} == {1.0}


def test_the_check_repeats_what_the_export_found(exported: Exported, model: Any) -> None:
    assert check_parity(exported.folder, model) == exported.parity
    table = exported.parity.table()
    assert isinstance(table, Table)
    assert Table.from_json(table.to_json()) == table
    assert "fp16 points: pred_masks, largest difference" in str([each.name for each in table.measurements])


def test_photos_one_by_one_or_together(
    exported: Exported, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_attention(model) == 2 * 4 * 16**2
    monkeypatch.setattr(parity, "_MOST_ATTENTION", 0)
    alone = check_parity(exported.folder, model)
    for one, other in zip(alone.differences, exported.parity.differences, strict=True):
        assert (one.variant, one.graph, one.output, one.spread) == (
            other.variant,
            other.graph,
            other.output,
            other.spread,
        )
    assert alone.find_worst("fp32").share < 1e-4


def test_another_model_is_far_away(exported: Exported) -> None:
    other = check_parity(exported.folder, tiny.build(dtype=torch.float32, seed=1))
    assert other.find_worst("fp32").share > 0.5
    assert min(each.iou for each in other.agreements) < 0.9
    with pytest.raises(MismatchError, match="64 pixels"):
        check_parity(exported.folder, tiny_sam(image_px=48))


def test_one_changed_weight_shows(exported: Exported, model: Any, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / "onnx", tmp_path / "onnx")
    path = tmp_path / "onnx" / "prompt_encoder_mask_decoder.onnx"
    graph = onnx.load(str(path))
    (weight,) = (each for each in graph.graph.initializer if each.name.endswith("upscale_conv2.bias"))
    changed = numpy_helper.to_array(weight).copy()
    changed[0] += 1
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(graph, str(path))
    found = measure_parity(tmp_path, model)
    worst = found.find_worst("fp32")
    assert (worst.graph, worst.share > 1e-3) == ("points", True)
    assert {each.graph for each in found.differences} == {"encoder", "points"}


def test_damage_is_found(exported: Exported, model: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        check_parity(tmp_path / "nowhere", model)
    with pytest.raises(IntegrityError):
        check_parity(tmp_path, model)
    folder = tmp_path / "copy"
    shutil.copytree(exported.folder, folder)
    (folder / "onnx" / "vision_encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(IntegrityError, match="vision_encoder"):
        check_parity(folder, model)
    with pytest.raises(IntegrityError, match="a graph that onnxruntime runs"):
        measure_parity(folder, model)


def test_a_format_that_is_not_there() -> None:
    found = Parity((Difference("fp32", "points", "pred_masks", 0.0, 0.0, 0.0),), ())
    assert found.find_worst("fp32").share == 0
    with pytest.raises(DataError, match="fp32"):
        found.find_worst("q8")
