"""One self-contained HTML file from any result: pictures, curves, the receipt, how it was made.

The report knows none of the areas. Each area turns its own result into a ``Report`` and hands it to
``write_report``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.report.document import (
        Block,
        Comparison,
        Curve,
        Level,
        Picture,
        Pictures,
        Point,
        Receipt,
        ReceiptLine,
        Report,
        Scatter,
        Section,
        Series,
        TableBlock,
    )
    from aerogel.report.page import render_report, write_report

__all__ = [
    "Block",
    "Comparison",
    "Curve",
    "Level",
    "Picture",
    "Pictures",
    "Point",
    "Receipt",
    "ReceiptLine",
    "Report",
    "Scatter",
    "Section",
    "Series",
    "TableBlock",
    "render_report",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "page" if name.endswith("_report") else "document"
    return getattr(import_module(f"aerogel.report.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
