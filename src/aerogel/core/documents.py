"""Read what a folder holds beside its manifest: JSON documents and tensors, both from anybody."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aerogel.core.canonical import parse_json, show_value
from aerogel.core.files import open_regular
from aerogel.errors import IntegrityError, compose

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["digest_tensors", "read_json", "read_object", "read_tensors"]

_MOST_BYTES = 1 << 24
_REMEDY = "make or fetch it again"


def read_json(path: str | Path, *, most_bytes: int = _MOST_BYTES) -> Any:
    """Read a JSON file, refusing links, devices, repeated keys, deep nesting and numbers beyond float64.

    Raises:
        IntegrityError: there is no such file, it is larger than ``most_bytes``, or not such JSON.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        raw = file.read(most_bytes + 1)
    try:
        if len(raw) > most_bytes:
            raise ValueError(f"more than {most_bytes:,} bytes")
        return parse_json(raw)
    except ValueError as error:
        raise IntegrityError(compose(f"JSON text in {path}", str(error), _REMEDY)) from error


def read_object(path: str | Path, *, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        IntegrityError: as for :func:`read_json`, or it holds something else.
    """
    found = read_json(path, most_bytes=most_bytes)
    if not isinstance(found, dict):
        raise IntegrityError(compose(f"a JSON object in {path}", show_value(found), _REMEDY))
    return found


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, and the texts stored beside them.

    Raises:
        IntegrityError: there is no such file, or it is damaged or of another format, such as pickle.
    """
    from safetensors import SafetensorError, safe_open

    os.close(open_regular(path))
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            return tensors, dict(stored.metadata() or {})
    except (
        SafetensorError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise IntegrityError(
            compose(f"a whole safetensors file at {path}", str(error)[:300], _REMEDY)
        ) from error


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return a check sum, against accidents, of the names, types, shapes and bytes of tensors on the CPU."""
    import torch

    check = 0
    for name, value in sorted(tensors.items()):
        check = zlib.crc32(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode(), check)
        check = zlib.crc32(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data, check)
    return f"{check:08x}"
