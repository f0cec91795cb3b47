"""Segmenters as ONNX in two parts, for onnxruntime and transformers.js, each held against its torch model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.export.api import Exported, export_onnx
    from aerogel.export.parity import Difference, Parity, check_parity

__all__ = ["Difference", "Exported", "Parity", "check_parity", "export_onnx"]

_HOMES = {
    "Difference": "parity",
    "Exported": "api",
    "Parity": "parity",
    "check_parity": "parity",
    "export_onnx": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
