"""Graphs have the names, types and shapes that transformers.js and optimum know."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aerogel.export import Exported
from aerogel.export.graphs import draw_inputs, list_graphs
from tests.unit.export.running import open_graph

EMBEDDED = ("tensor(float)", ["batch_size", 32, 4, 4])
PROMPTS = ["batch_size", "point_batch_size", "nb_points_per_image"]
ENCODED = {"image_embeddings": EMBEDDED, "image_positional_embeddings": EMBEDDED}
DECODED = {
    "iou_scores": ("tensor(float)", ["batch_size", "point_batch_size", 3]),
    "pred_masks": ("tensor(float)", ["batch_size", "point_batch_size", 3, 16, 16]),
}
POINTS = {
    "input_points": ("tensor(float)", [*PROMPTS, 2]),
    "input_labels": ("tensor(int64)", PROMPTS),
}
BOXES = {"input_boxes": ("tensor(float)", ["batch_size", "point_batch_size", 4])}
PIXELS = {"pixel_values": ("tensor(float)", ["batch_size", 3, 64, 64])}
CONTRACT = {
    "onnx/vision_encoder": (PIXELS, ENCODED),
    "onnx/prompt_encoder_mask_decoder": (POINTS | ENCODED, DECODED),
    "onnx-boxes/vision_encoder": (PIXELS, ENCODED),
    "onnx-boxes/prompt_encoder_mask_decoder": (BOXES | ENCODED, DECODED),
}


def describe(ports: Any) -> dict[str, Any]:
    return {port.name: (port.type, port.shape) for port in ports}


@pytest.mark.parametrize("suffix", ["", "_fp16", "_quantized"])
@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract(exported: Exported, name: str, suffix: str) -> None:
    session = open_graph(exported.folder / f"{name}{suffix}.onnx")
    found = describe(session.get_inputs()), describe(session.get_outputs())
    assert found == CONTRACT[name]
    assert [list(each) for each in found] == [list(each) for each in CONTRACT[name]], "in this order"


def test_ports_say_what_may_vary(model: Any) -> None:
    encoder, points, boxes = list_graphs(model)
    assert encoder.inputs[0].open_axes == {0: "batch_size"}
    assert points.inputs[0].open_axes == {0: "batch_size", 1: "point_batch_size", 2: "nb_points_per_image"}
    assert boxes.path("_fp16") == "onnx-boxes/prompt_encoder_mask_decoder_fp16.onnx"
    assert [graph.name for graph in list_graphs(model, boxes=False)] == ["encoder", "points"]


def test_modules_give_what_the_model_gives(model: Any) -> None:
    encoder, points, boxes = list_graphs(model)
    with torch.no_grad():
        (pixels,) = draw_inputs(encoder)
        embeddings, positions = encoder.build(model)(pixels)
        assert torch.equal(embeddings, model.get_image_embeddings(pixels))
        drawn = draw_inputs(points)[:2]
        scores, masks = points.build(model)(*drawn, embeddings, positions)
        whole = model(image_embeddings=embeddings, input_points=drawn[0], input_labels=drawn[1])
        assert torch.equal(masks, whole.pred_masks)
        assert torch.equal(scores, whole.iou_scores)
        corners = draw_inputs(boxes)[0]
        _, masks = boxes.build(model)(corners, embeddings, positions)
        assert torch.equal(masks, model(image_embeddings=embeddings, input_boxes=corners).pred_masks)
