"""Codecs of stored soft labels: short names, one contract to encode and decode, shards on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.condense.codecs.encodings import Encoding, build_encoding
    from aerogel.condense.codecs.naming import Codec, parse_codec
    from aerogel.condense.codecs.shards import Store, open_store

__all__ = ["Codec", "Encoding", "Store", "build_encoding", "open_store", "parse_codec"]

_HOMES = {
    "encodings": ("Encoding", "build_encoding"),
    "naming": ("Codec", "parse_codec"),
    "shards": ("Store", "open_store"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
