"""Draw series against a common x, each named at its end."""

from __future__ import annotations

from aerogel.report.axes import FONT, SIZES, Plot, Scale, Size
from aerogel.report.chart import (
    Chart,
    KeyEntry,
    View,
    level_key,
    level_style,
    line_key,
    line_style,
    marker,
    split_levels,
)
from aerogel.report.document import Curve, Level, Series, is_drawable
from aerogel.report.labels import measure_width, shorten, spread_apart
from aerogel.report.palette import marker_size, series_role, stand_in
from aerogel.report.quantities import format_quantity
from aerogel.report.svg import Text, inline_svg

_LINE_HEIGHT = 18.0
_MARKED = 12  # series of at most so many points show each of them
_SHARE = 0.34  # of the width, for names beside the plot


def draw_curve(curve: Curve, prefix: str) -> Chart:
    """Draw ``curve`` for every size of page; ``prefix`` keeps its ids apart from those of other charts."""
    levels, notes = split_levels(curve.levels, curve.log_y)
    for series in curve.series:
        missing = len(series.x) - len(_points(curve, series))
        if missing:
            count = f"{missing} of {len(series.x)}"
            notes.append(f"{series.name}: {count} values cannot be drawn and left a gap.")
    views = tuple(_draw(curve, levels, size, f"{prefix}{size.name[0]}-") for size in SIZES)
    header = ("series", "points", "first", "smallest", "largest", "last")
    rows = tuple(_summarise(curve, series) for series in curve.series)
    rows += tuple(
        (level.name, "level", *[format_quantity(level.y, curve.y_unit)] * 4) for level in curve.levels
    )
    return Chart(views, tuple(notes), header, rows)


def _points(curve: Curve, series: Series) -> list[tuple[float, float]]:
    pairs = zip(series.x, series.y, strict=True)
    return [(x, y) for x, y in pairs if is_drawable(x, curve.log_x) and is_drawable(y, curve.log_y)]


def _draw(curve: Curve, levels: list[Level], size: Size, prefix: str) -> View:
    ends = [
        (index, points[-1]) for index, series in enumerate(curve.series) if (points := _points(curve, series))
    ]
    scale_x = Scale.fit(curve.x_label, curve.x_unit, curve.log_x, [x for s in curve.series for x in s.x])
    scale_y = Scale.fit(curve.y_label, curve.y_unit, curve.log_y, _heights(curve, levels), margin=0.05)
    names = [curve.series[index].name for index, _ in ends] + [level.name for level in levels]
    width = max((measure_width(name, FONT) for name in names), default=0.0)
    beside = not size.is_narrow and 0 < width <= size.width * _SHARE
    plot = Plot(size, scale_x, scale_y, right=width + 26 if beside else 14)
    for index, series in enumerate(curve.series):
        _draw_series(plot, curve, series, index)
    for level in levels:
        plot.axes.axhline(level.y, **level_style())  # type: ignore[arg-type]
    key: list[KeyEntry] = []
    if not (beside and _name_ends(plot, curve, ends, levels)):
        key = [line_key(curve.series[index].name, index) for index, _ in ends]
        key += [level_key(level) for level in levels]
    alt = f"{curve.title}: {curve.y_label} against {curve.x_label} for {', '.join(names) or 'no series'}."
    tips = {f"series-{index}": series.name for index, series in enumerate(curve.series)}
    return View(
        size.name, inline_svg(plot.figure, prefix=prefix, alt=alt, texts=plot.texts, tips=tips), tuple(key)
    )


def _heights(curve: Curve, levels: list[Level]) -> list[float]:
    heights = [level.y for level in levels]
    for series in curve.series:
        spreads = series.spread or (0.0,) * len(series.y)
        for x, y, spread in zip(series.x, series.y, spreads, strict=True):
            if is_drawable(x, curve.log_x):
                heights += [y, y - spread, y + spread]
    return heights


def _draw_series(plot: Plot, curve: Curve, series: Series, index: int) -> None:
    """Draw one line with gaps where values cannot be drawn, and the band of its spread."""
    nothing = float("nan")
    shown = [
        (x, y) if is_drawable(x, curve.log_x) and is_drawable(y, curve.log_y) else (nothing, nothing)
        for x, y in zip(series.x, series.y, strict=True)
    ]
    kept = len(_points(curve, series))
    style = line_style(index)
    if kept <= _MARKED:
        edge = {"markeredgecolor": stand_in("page"), "markeredgewidth": 1.2}
        style |= {"marker": marker(index), "markersize": marker_size(marker(index), 3.8), **edge}
    xs, ys = [x for x, _ in shown], [y for _, y in shown]
    plot.axes.plot(xs, ys, gid=f"series-{index}", clip_on=False, **style)  # type: ignore[arg-type]
    if series.spread is None:
        return
    halves = [spread if is_drawable(spread) else 0.0 for spread in series.spread]
    lows = [plot.clamp(y - half) if y == y else nothing for y, half in zip(ys, halves, strict=True)]
    highs = [plot.clamp(y + half) if y == y else nothing for y, half in zip(ys, halves, strict=True)]
    colour = stand_in(series_role(index))
    plot.axes.fill_between(xs, lows, highs, color=colour, alpha=0.14, linewidth=0)


def _name_ends(
    plot: Plot, curve: Curve, ends: list[tuple[int, tuple[float, float]]], levels: list[Level]
) -> bool:
    """Write each name beside its line's end, moved apart where needed; tell whether all had room."""
    right = plot.frame.right
    marks = [(curve.series[index].name, series_role(index), *plot.at(*end)) for index, end in ends]
    marks += [(level.name, "soft", right, plot.at(plot.x.high, level.y)[1]) for level in levels]
    frame = plot.frame
    heights = spread_apart([mark[3] for mark in marks], _LINE_HEIGHT, frame.top - 9, frame.bottom + 9)
    if heights is None:
        return False
    room = plot.size.width - right - 22
    for (name, role, across, down), height in zip(marks, heights, strict=True):
        plot.add_leader((across + 5, down), (right + 16, height), role, weight=1.6)
        plot.texts.append(Text(right + 20, height + 4.5, shorten(name, FONT, room), f"label {role}"))
    return True


def _summarise(curve: Curve, series: Series) -> tuple[str, ...]:
    """Return the row of numbers that stands for a line of any length."""
    heights = [y for _, y in _points(curve, series)]
    if not heights:
        return (series.name, "0", "—", "—", "—", "—")
    found = (heights[0], min(heights), max(heights), heights[-1])
    return (series.name, str(len(heights)), *(format_quantity(value, curve.y_unit) for value in found))
