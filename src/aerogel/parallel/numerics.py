"""Let worker processes compute in the same way as the first one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

_FLAGS = (
    "cuda.matmul.allow_tf32",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cudnn.allow_tf32",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "cudnn.enabled",
)


@dataclass(frozen=True)
class Numerics:
    """Hold the settings of torch that decide how results are rounded, and how fast they come."""

    dtype: torch.dtype
    matmul_precision: str
    deterministic: int
    flags: dict[str, Any]

    @classmethod
    def read(cls) -> Numerics:
        """Return the settings of this process."""
        flags = {}
        for name in _FLAGS:
            # torch refuses to read some of them where they were set in two ways.
            with suppress(AttributeError, RuntimeError):
                flags[name] = attrgetter(name)(torch.backends)
        return cls(
            dtype=torch.get_default_dtype(),
            matmul_precision=torch.get_float32_matmul_precision(),
            deterministic=torch.get_deterministic_debug_mode(),
            flags=flags,
        )

    def apply(self) -> None:
        """Make them those of this process."""
        torch.set_default_dtype(self.dtype)
        for name, value in self.flags.items():
            owner, _, leaf = name.rpartition(".")
            with suppress(AttributeError, RuntimeError):
                setattr(attrgetter(owner)(torch.backends), leaf, value)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.set_deterministic_debug_mode(self.deterministic)
