"""What writes and runs ONNX is found, or named."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from aerogel.errors import IntegrityError, MissingDependencyError
from aerogel.export import Exported
from aerogel.export.runtime import graph_errors, open_session, require_onnx


def test_onnx_is_found() -> None:
    assert require_onnx() is onnx


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_each_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=f"expected {name}, to export models"):
        require_onnx()


def test_what_is_no_graph_is_refused(tmp_path: Path, exported: Exported) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(IntegrityError, match=r"graph\.onnx"):
        open_session(tmp_path / "graph.onnx")
    with pytest.raises(IntegrityError, match=r"gone\.onnx"):
        open_session(tmp_path / "gone.onnx")
    session = open_session(exported.folder / "onnx" / "vision_encoder.onnx")
    with pytest.raises(ValueError, match="pixel_values"), graph_errors("graph.onnx"):
        session.run(None, {})


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), graph_errors("graph.onnx"):
        raise KeyError("mine")
