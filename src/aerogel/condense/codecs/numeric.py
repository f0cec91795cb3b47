"""Encodings that write numbers: logits as they are, in even steps, or the largest alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aerogel.condense.codecs.contract import (
    ENCODINGS,
    LARGEST,
    Encoding,
    Field,
    build_parts,
    find_outside,
    find_unfinite,
    index_type,
    require_float16,
)
from aerogel.condense.codecs.naming import Part

_TINY = 2.0**-24  # the smallest float16 above zero
_ROWS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Plain:
    """Write logits as floating-point numbers: float32 as they are, float16 rounded once."""

    width: int
    dtype: torch.dtype

    @property
    def layout(self) -> dict[str, Field]:
        """Return the one tensor: a number for each class."""
        return {"labels": Field(self.dtype, (self.width,))}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the logits in the type."""
        if self.dtype == torch.float16:
            require_float16(logits)
        return {"labels": logits.to(self.dtype)}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers in float32."""
        return code["labels"].float()

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of numbers that are not finite."""
        return find_unfinite(code)


@ENCODINGS.register("fp32")
def _build_fp32(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Plain(width, torch.float32)


@ENCODINGS.register("fp16")
def _build_fp16(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Plain(width, torch.float16)


@dataclass(frozen=True)
class Integers:
    """Write logits in 256 even steps between the row's smallest and largest.

    A row has an offset o and a step s in float16, and a class the code q = round((z - o) / s) from 0 to 255;
    it is read as o + s q. The offset is rounded down and the step up, so that no code is cut off and the
    error is at most half a step: s / 2, where s is (max - min) / 255 up to float16's rounding.
    """

    width: int

    @property
    def layout(self) -> dict[str, Field]:
        """Return codes, steps and offsets."""
        half = Field(torch.float16, ())
        return {"codes": Field(torch.uint8, (self.width,)), "steps": half, "offsets": half}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return codes, and each row's step and offset."""
        require_float16(logits)
        exact = logits.double().numpy()
        low, high = exact.min(1), exact.max(1)
        offsets = _round_half(low, -np.inf)
        steps = np.maximum(_round_half((high - offsets) / 255.0, np.inf), np.float16(_TINY))
        distance = exact - offsets.astype(np.float64)[:, None]
        codes = np.rint(distance / steps.astype(np.float64)[:, None])
        return {
            "codes": torch.from_numpy(codes.astype(np.uint8)),
            "steps": torch.from_numpy(steps),
            "offsets": torch.from_numpy(offsets),
        }

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return offset + step * code."""
        return code["offsets"].float()[:, None] + code["steps"].float()[:, None] * code["codes"].float()

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of steps or offsets that are not finite, or steps that are not above zero."""
        if code["steps"].numel() and not bool((code["steps"] > 0).all()):
            return "steps that are not above zero"
        return find_unfinite(code)


def _round_half(values: np.ndarray, towards: float) -> np.ndarray:
    """Return ``values`` [V] as float16, rounded towards minus or plus infinity."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float16)
    past = near > values if towards < 0 else near < values
    limit = np.float16(towards)
    found: np.ndarray = np.where(past, np.nextafter(near, limit), near)
    return found.clip(np.float16(-LARGEST), np.float16(LARGEST))


@ENCODINGS.register("int8")
def _build_int8(numbers: object, width: int, rest: object, books: object) -> Encoding:
    return Integers(width)


@dataclass(frozen=True)
class Top:
    """Write the ``count`` largest logits and their classes, the rest of the probability spread evenly.

    Let R be the classes left out and t = log(mean of exp(z_c) over R), the level at which each would have to
    stand so that together they keep their probability. Stored are the classes in falling order (equal logits:
    the lower class first) and z_c - t, by the ``values`` encoding. Read back, those are the logits of the
    classes, 0 is that of all others, and the row's mean is taken off: a softmax gives back the probability of
    every stored class and, for each other one, an even share of what is left.
    """

    width: int
    count: int
    values: Encoding

    @property
    def layout(self) -> dict[str, Field]:
        """Return the classes, in the smallest index type, and the values' tensors."""
        return {"classes": Field(index_type(self.width), (self.count,)), **self.values.layout}

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return classes and heights above the level of the rest."""
        require_float16(logits)
        ordered, classes = logits.double().sort(dim=1, descending=True, stable=True)
        rest = ordered[:, self.count :]
        level = rest.logsumexp(1, keepdim=True) - math.log(rest.shape[1])
        heights = (ordered[:, : self.count] - level).float()
        # A copy: a part of a larger tensor would be written with all of it.
        kept = classes[:, : self.count].to(index_type(self.width)).contiguous()
        return {"classes": kept, **self.values.encode(heights)}

    def decode(self, code: Mapping[str, Tensor]) -> Tensor:
        """Return the logits, their mean zero in every row."""
        heights = self.values.decode({name: code[name] for name in self.values.layout})
        logits = torch.zeros(len(heights), self.width).scatter_(1, code["classes"].long(), heights)
        return logits - logits.mean(1, keepdim=True)

    def find_fault(self, code: Mapping[str, Tensor]) -> str | None:
        """Tell of classes that do not exist or come twice in a row, and of what is wrong with the values."""
        outside = find_outside("classes", code["classes"], self.width)
        if outside:
            return outside
        for part in code["classes"].split(_ROWS_AT_ONCE):
            ordered = part.sort(1).values
            if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
                return "a class that comes twice in one label"
        return self.values.find_fault({name: code[name] for name in self.values.layout})


@ENCODINGS.register("top")
def _build_top(
    numbers: tuple[int, ...], width: int, rest: tuple[Part, ...], books: Mapping[str, Tensor]
) -> Encoding:
    return Top(width, numbers[0], build_parts(rest, numbers[0], books))
