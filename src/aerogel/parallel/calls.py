"""The calls of a denoiser that one round makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Cancelled(Exception):
    """Say that the rank which leads has left the image that the denoiser is called for."""


@dataclass(frozen=True)
class Calls:
    """Call a denoiser's ``forward`` on the newest input, at the time of one of several steps."""

    forward: Callable[..., Any]
    arguments: Mapping[int, Arguments]

    def __call__(self, step: int) -> Any:
        """Return the denoiser's output at the time of ``step``."""
        args, kwargs = self.arguments[step]
        return self.forward(*args, **kwargs)
