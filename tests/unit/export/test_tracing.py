"""Tracing keeps open sizes open and is quiet about itself alone."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from aerogel.export.graphs import list_graphs
from aerogel.export.tracing import OpenUnflatten, quiet_exporter, write_graph


def test_unflatten_is_a_reshape() -> None:
    values = torch.arange(48).reshape(2, 6, 4)
    expected = [
        values.unflatten(1, (-1, 3)),
        values.unflatten(-1, (2, 2)),
        values.unflatten(dim=0, sizes=(2, 1)),
    ]
    with OpenUnflatten():
        found = [
            values.unflatten(1, (-1, 3)),
            values.unflatten(-1, (2, 2)),
            values.unflatten(dim=0, sizes=(2, 1)),
        ]
        assert torch.equal(values + 1, torch.add(values, 1))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_only_the_exporter_is_silenced() -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.disabled
    with quiet_exporter():
        warnings.warn(
            "You are using the legacy TorchScript-based ONNX export. And so on", DeprecationWarning, 1
        )
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", stacklevel=1)
    assert logger.disabled == before
    with pytest.raises(DeprecationWarning):
        warnings.warn("You are using the legacy TorchScript-based ONNX export", DeprecationWarning, 1)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_written_graph_has_its_shapes_and_opset(model: Any, tmp_path: Path, opset: int) -> None:
    encoder = list_graphs(model)[0]
    write_graph(encoder, model, tmp_path / "graph.onnx", opset=opset)
    written = onnx.load(str(tmp_path / "graph.onnx"))
    onnx.checker.check_model(written, full_check=True)
    assert [each.version for each in written.opset_import if not each.domain] == [opset]
    sizes = [size.dim_param or size.dim_value for size in written.graph.output[1].type.tensor_type.shape.dim]
    assert tuple(sizes) == encoder.outputs[1].shape
    assert not written.graph.value_info
