"""The packages that write and run ONNX: found, or named as missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from aerogel.errors import IntegrityError, MissingDependencyError, compose

_ERRORS_ONLY = 3


def require_onnx() -> ModuleType:
    """Return onnx, after checking that onnxruntime is there as well.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    _require("onnxruntime")
    return _require("onnx")


def open_session(path: str | Path) -> Any:
    """Open a graph in onnxruntime on the CPU, with as many threads as torch uses.

    Raises:
        IntegrityError: the file is no graph that onnxruntime reads.
        MissingDependencyError: onnxruntime is not installed.
    """
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _ERRORS_ONLY
    # The arena grows by doubling: with the attention of large images, to many times of what is used.
    options.enable_cpu_mem_arena = False
    with graph_errors(path):
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def graph_errors(path: str | Path) -> Iterator[None]:
    """Turn what onnxruntime raises about a graph into IntegrityError.

    Raises:
        IntegrityError: onnxruntime cannot read or run the graph.
    """
    try:
        yield
    except Exception as error:
        # Its errors share no class that it makes public.
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise IntegrityError(
            compose(f"a graph that onnxruntime runs at {path}", str(error), "export the model again")
        ) from error


def _require(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as missing:
        raise MissingDependencyError(
            compose(f"{name}, to export models", "no such package", 'pip install "aerogel[export]"')
        ) from missing
