"""Encodings of stored labels by the names of their codecs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# Imported for what they register.
from aerogel.condense.codecs import codebooks, numeric  # noqa: F401
from aerogel.condense.codecs.contract import Encoding, build_parts
from aerogel.condense.codecs.naming import Codec

__all__ = ["Encoding", "build_encoding", "view_bytes"]


def build_encoding(codec: Codec, classes: int, books: Mapping[str, Tensor] | None = None) -> Encoding:
    """Build the encoding of a codec for labels of ``classes`` classes.

    ``books`` are the codebooks from :func:`fit_codebooks`, for codecs that have them; without them the layout
    is all that such an encoding knows.
    """
    return build_parts(codec.encoding, classes, books or {})


def view_bytes(codec: Codec, classes: int) -> int:
    """Return the bytes that a codec writes for one stored view, without files' headers and codebooks."""
    return sum(field.bytes for field in build_encoding(codec, classes).layout.values())
