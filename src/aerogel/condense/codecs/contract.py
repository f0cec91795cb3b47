"""What a label encoding is: logits of views into tensors whose first axis is V, and back, row by row.

The code of a view depends on its own logits only, so that codes do not depend on batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aerogel.condense.codecs.naming import Part
from aerogel.core.registry import Registry
from aerogel.errors import DataError, compose

__all__ = [
    "ENCODINGS",
    "LARGEST",
    "Encoding",
    "Field",
    "build_parts",
    "find_outside",
    "find_unfinite",
    "index_type",
    "require_float16",
]

LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class Field:
    """Describe one tensor of a code: its type, and its shape for one view."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return what one view takes."""
        return self.dtype.itemsize * math.prod(self.shape)


class Encoding(Protocol):
    """Turn logits into what is stored, and back."""

    @property
    def layout(self) -> dict[str, Field]:
        """Return the stored tensors by name."""
        ...

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the code of ``logits`` [V, C] (float32, on the CPU), tensors as in ``layout``.

        Raises:
            DataError: there is a logit that the encoding cannot hold.
        """
        ...

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return logits [V, C] in float32."""
        ...

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Return what no encoder writes in tensors that have the layout's types and shapes, or None."""
        ...


Builder = Callable[[tuple[int, ...], int, tuple[Part, ...], Mapping[str, Tensor]], Encoding]
ENCODINGS: Registry[Builder] = Registry("label encoding")


def build_parts(parts: tuple[Part, ...], width: int, books: Mapping[str, Tensor]) -> Encoding:
    """Build the encoding that ``parts`` of a codec name, for ``width`` numbers a view."""
    return ENCODINGS.get(parts[0].kind)(parts[0].numbers, width, parts[1:], books)


def index_type(count: int) -> torch.dtype:
    """Return the smallest of three types that holds the numbers below ``count``."""
    if count <= 2**8:
        return torch.uint8
    return torch.int16 if count <= 2**15 else torch.int32


def require_float16(logits: Tensor) -> None:
    """Check that float16 holds every logit.

    Raises:
        DataError: one is larger, or no number.
    """
    largest = float(logits.abs().amax()) if logits.numel() else 0.0
    if not largest <= LARGEST:
        raise DataError(
            compose(
                f"logits up to {LARGEST:,.0f}, which float16 holds",
                f"{largest:g}",
                "store them as stored-fp32, or look at what the teacher gives",
            )
        )


def find_unfinite(code: Mapping[str, Tensor]) -> str | None:
    """Tell of the first tensor of a code with values that are no finite numbers, or return None."""
    for name, tensor in code.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"values of {name!r} that are no finite numbers"
    return None


def find_outside(name: str, indices: Tensor, count: int) -> str | None:
    """Tell of ``indices`` that do not lie below ``count``, or return None."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        return f"indices in {name!r} from {int(indices.min())} to {int(indices.max())}, of {count}"
    return None
