"""Graphs as onnxruntime runs them by itself, each opened once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch


@cache
def open_graph(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    return list(open_graph(path).run(None, {name: value.numpy() for name, value in inputs.items()}))
