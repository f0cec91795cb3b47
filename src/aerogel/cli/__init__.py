"""The command line: one file per verb, and no torch before there is work for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.cli.program import app, main

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aerogel.cli import program

    return getattr(program, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
