"""Public image backbones for the label generator; nothing else knows other libraries' model internals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.condense.families.backbone import Backbone
    from aerogel.condense.families.loading import load_backbone

__all__ = ["Backbone", "load_backbone"]

_PLACES = {"Backbone": "backbone", "load_backbone": "loading"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
