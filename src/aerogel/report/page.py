"""Write a report as one HTML page that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from aerogel.core.folders import write_text_atomic
from aerogel.errors import MissingDependencyError, compose
from aerogel.report import palette
from aerogel.report.document import Block, Comparison, Curve, Picture, Pictures, Report, TableBlock
from aerogel.report.pictures import encode_data_uri, read_size
from aerogel.report.quantities import format_quantity, tie_units

_BARS = 46


def write_report(report: Report, path: str | Path) -> Path:
    """Write ``report`` to ``path``, whole or not at all, and return the path.

    The same report gives the same bytes.

    Raises:
        MissingDependencyError: matplotlib or jinja2 is not installed.
    """
    target = Path(path)
    write_text_atomic(target, render_report(report))
    return target


def render_report(report: Report) -> str:
    """Return ``report`` as the text of one self-contained HTML page; every text in it is escaped.

    Raises:
        MissingDependencyError: matplotlib or jinja2 is not installed.
    """
    try:
        import matplotlib
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            compose("matplotlib and jinja2", str(error), 'pip install "aerogel[report]"')
        ) from error
    from aerogel.report.svg import plain_settings

    loader = PackageLoader("aerogel.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tie"] = tie_units
    numbers = count(1)
    with matplotlib.rc_context(plain_settings()):
        sections = [
            {
                "title": section.title,
                "paragraphs": _split_paragraphs(section.text),
                "blocks": [_prepare(block, next(numbers)) for block in section.blocks],
            }
            for section in report.sections
        ]
    page = environment.get_template("report.html.j2").render(
        report=report,
        lede=_split_paragraphs(report.lede),
        sections=sections,
        columns=(
            ("paid", report.receipt.paid),
            ("saved", report.receipt.saved),
            ("lost", report.receipt.lost),
        ),
        bars=_draw_bars(report.receipt.number),
        facts=[(title, facts) for title, facts in _list_facts(report) if facts],
        light=palette.LIGHT,
        dark=palette.DARK,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # file names may hold lone surrogates


def _prepare(block: Block, number: int) -> dict[str, Any]:
    """Return what the template needs for one block; ``kind`` names its macro."""
    common = {"title": block.title, "paragraphs": _split_paragraphs(block.text), "id": f"b{number}"}
    if isinstance(block, Pictures):
        pictures = [_prepare_picture(picture) for picture in block.images if isinstance(picture, Picture)]
        grid = {
            "columns": block.columns,
            "narrow": _narrow_columns(block.columns),
            "pixelated": block.pixelated,
        }
        return common | grid | {"kind": "pictures", "pictures": pictures}
    if isinstance(block, Comparison):
        pairs = [tuple(_prepare_picture(picture) for picture in pair) for pair in block.pairs]
        return common | {
            "kind": "comparison",
            "columns": 3 if len(pairs) % 3 == 0 else 2,
            "pairs": pairs,
            "names": block.names,
            "pixelated": block.pixelated,
        }
    if isinstance(block, TableBlock):
        return common | {"kind": "table", "table": _prepare_table(block.header, block.rows, block.highlight)}
    from aerogel.report.curve import draw_curve
    from aerogel.report.scatter import draw_scatter

    prefix = f"b{number}"
    chart = draw_curve(block, prefix) if isinstance(block, Curve) else draw_scatter(block, prefix)
    return common | {"kind": "chart", "chart": chart, "table": _prepare_table(chart.header, chart.rows)}


def _prepare_picture(picture: Picture) -> dict[str, Any]:
    data = bytes(picture.image)
    width, height, _ = read_size(data)
    alt = picture.alt or picture.caption or "picture"
    return {
        "uri": encode_data_uri(data),
        "width": width,
        "height": height,
        "alt": alt,
        "caption": picture.caption,
    }


def _prepare_table(
    header: Sequence[str], rows: Sequence[Sequence[str | int | float | None]], highlight: Sequence[int] = ()
) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    cells = [[cell if isinstance(cell, str) else format_quantity(cell) for cell in row] for row in rows]
    return {
        "header": header,
        "numeric": [bool(column) and all(_is_number(cell) for cell in column) for column in columns],
        "rows": [(cell_row, index in highlight) for index, cell_row in enumerate(cells)],
    }


def _is_number(cell: str | int | float | None) -> bool:
    """Tell whether a cell fits a column of numbers: a number, a missing one, or words that start with one."""
    return not isinstance(cell, str) or cell == "—" or cell.lstrip("+-−~<>≥≤ ")[:1].isdigit()


def _narrow_columns(columns: int) -> int:
    """Return how many pictures stand in a row on a narrow screen, so that rows still break where they did."""
    if columns <= 3:
        return columns
    return max((part for part in (3, 4, 5) if columns % part == 0), default=4)


def _split_paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _list_facts(report: Report) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "Settings", list(_flatten(report.config))
    yield "Environment", list(_flatten(report.environment))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every leaf of nested settings under its dotted name."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _write_setting(value)


def _write_setting(value: object) -> str:
    if value is None or value == "" or value == {} or value == [] or value == ():
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_write_setting(each) for each in value)
    return str(value)


def _draw_bars(number: str) -> list[tuple[int, int]]:
    """Return (offset, width) of the bars that decorate a receipt's number; they encode nothing."""
    if not number:
        return []
    digest = hashlib.sha256(number.encode("utf-8", "replace")).digest() * 2
    bars, offset = [], 0
    for index in range(_BARS):
        bar, space = 1 + digest[index] % 3, 1 + digest[index] // 3 % 3
        bars.append((offset, bar))
        offset += bar + space
    return bars
