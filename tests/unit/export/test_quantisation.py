"""Eight bits for weights, none lost for positions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from aerogel.export import Exported
from aerogel.export.quantisation import keep_root_logger, quantise_graph


@pytest.fixture(scope="module")
def graph(exported: Exported) -> Any:
    return onnx.load(str(exported.folder / "onnx" / "prompt_encoder_mask_decoder_quantized.onnx")).graph


def test_weights_have_eight_bits_and_a_scale_for_each_channel(exported: Exported, graph: Any) -> None:
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    narrow = {name: value for name, value in weights.items() if value.dtype == np.uint8 and value.ndim == 2}
    assert len(narrow) > 40
    whole = onnx.load(str(exported.folder / "onnx" / "prompt_encoder_mask_decoder.onnx")).graph
    exact = {each.name: numpy_helper.to_array(each) for each in whole.initializer}
    compared = 0
    for name, value in narrow.items():
        stem = name.removesuffix("_quantized")
        scale, zero = weights[f"{stem}_scale"], weights[f"{stem}_zero_point"].astype(np.float64)
        assert scale.shape == zero.shape == (value.shape[1],)
        assert (np.abs((value - zero) * scale - exact[stem]) <= 0.51 * scale).all()
        compared += 1
    assert compared == len(narrow)


def test_positions_stay_exact(graph: Any) -> None:
    kinds = {node.name: node.op_type for node in graph.node}
    spared = [name for name, kind in kinds.items() if kind == "MatMul" and "shared_embedding" in name]
    assert len(spared) == 1
    assert sum(kind == "MatMulInteger" for kind in kinds.values()) > 40


def test_only_what_runs_is_written(graph: Any) -> None:
    assert not graph.value_info


def test_convolutions_stay(exported: Exported) -> None:
    graph = onnx.load(str(exported.folder / "onnx" / "vision_encoder_quantized.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 3
    assert "ConvInteger" not in kinds
    assert kinds.count("MatMulInteger") == 4 * 3, "four layers in each of three blocks"


def test_the_root_logger_is_left_alone(exported: Exported, tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    quantise_graph(exported.folder / "onnx" / "vision_encoder.onnx", tmp_path / "graph.onnx")
    assert logging.getLogger().handlers == before
    with keep_root_logger():
        assert len(logging.getLogger().handlers) == len(before) + 1
    assert (tmp_path / "graph.onnx").read_bytes() == (
        exported.folder / "onnx" / "vision_encoder_quantized.onnx"
    ).read_bytes()
