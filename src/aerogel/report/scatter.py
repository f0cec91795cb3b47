"""Draw named points, such as accuracy against bytes, each named beside its marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aerogel.report.axes import FONT, SIZES, Plot, Scale, Size
from aerogel.report.chart import (
    Chart,
    KeyEntry,
    View,
    level_key,
    level_style,
    marker,
    marker_key,
    split_levels,
)
from aerogel.report.document import Level, Point, Scatter, is_drawable
from aerogel.report.labels import Box, Obstacle, Place, measure_width, offer_places, place_labels, shorten
from aerogel.report.palette import marker_size, series_role, stand_in
from aerogel.report.quantities import format_quantity
from aerogel.report.svg import Text, inline_svg

_LABEL_HEIGHT = 16.0
_SHARE = 0.75  # of the plot's width, for one name
_MOST_NAMED, _MOST_NUMBERED = 20, 60  # points; beyond, the numbers below the drawing name them
_CAP = 3.5  # half the length of an error bar's cap
_BOLD = 1.1  # bold letters are wider


def draw_scatter(scatter: Scatter, prefix: str) -> Chart:
    """Draw ``scatter`` for every size of page; ``prefix`` keeps its ids apart from those of other charts."""
    levels, notes = split_levels(scatter.levels, scatter.log_y)
    points = [
        point
        for point in scatter.points
        if is_drawable(point.x, scatter.log_x) and is_drawable(point.y, scatter.log_y)
    ]
    left_out = [point.name for point in scatter.points if point not in points]
    if left_out:
        notes.append(f"Cannot be drawn, see the numbers: {', '.join(left_out)}.")
    views = tuple(_draw(scatter, points, levels, size, f"{prefix}{size.name[0]}-") for size in SIZES)
    rows = [(point.name, *_write(scatter, point)) for point in scatter.points]
    rows += [(level.name, "—", format_quantity(level.y, scatter.y_unit)) for level in scatter.levels]
    return Chart(views, tuple(notes), ("", scatter.x_label, scatter.y_label), tuple(rows))


def _write(scatter: Scatter, point: Point) -> tuple[str, str]:
    x, y = format_quantity(point.x, scatter.x_unit), format_quantity(point.y, scatter.y_unit)
    if point.x_spread is not None:
        x += f" ± {format_quantity(point.x_spread, scatter.x_unit)}"
    if point.spread is not None:
        y += f" ± {format_quantity(point.spread, scatter.y_unit)}"
    return x, y


def _draw(scatter: Scatter, points: list[Point], levels: list[Level], size: Size, prefix: str) -> View:
    across = [value for point in points for value in _reach(point.x, point.x_spread, scatter.log_x)]
    heights = [value for point in points for value in _reach(point.y, point.spread, scatter.log_y)]
    heights += [level.y for level in levels]
    scale_x = Scale.fit(scatter.x_label, scatter.x_unit, scatter.log_x, across, margin=0.07)
    scale_y = Scale.fit(scatter.y_label, scatter.y_unit, scatter.log_y, heights, margin=0.1)
    plot = Plot(size, scale_x, scale_y)
    groups = list(dict.fromkeys(point.group for point in points if point.group))
    looks = [
        groups.index(point.group) if groups and point.group else index for index, point in enumerate(points)
    ]
    for level in levels:
        plot.axes.axhline(level.y, **level_style())  # type: ignore[arg-type]
    for index in sorted(range(len(points)), key=lambda index: points[index].emphasis):
        _draw_point(plot, points[index], index, looks[index])
    key = [marker_key(name, index) for index, name in enumerate(groups)] if len(groups) > 1 else []
    key += _name_points(plot, points, levels, looks)
    tips = {f"point-{i}": f"{p.name}: {' · '.join(_write(scatter, p))}" for i, p in enumerate(points)}
    alt = f"{scatter.title}: {scatter.y_label} against {scatter.x_label}. {'; '.join(tips.values())}."
    return View(
        size.name, inline_svg(plot.figure, prefix=prefix, alt=alt, texts=plot.texts, tips=tips), tuple(key)
    )


def _reach(value: float, spread: float | None, log: bool) -> list[float]:
    if spread is None or not is_drawable(spread):
        return [value]
    return [bound for bound in (value - spread, value, value + spread) if is_drawable(bound, log)]


def _draw_point(plot: Plot, point: Point, index: int, look: int) -> None:
    """Draw one marker and its error bars, which end in short caps."""
    colour = stand_in(series_role(look))
    for low, high in _bars(plot, point):
        cap: dict[str, Any] = {"marker": "_" if low[0] == high[0] else "|", "markersize": 2 * _CAP}
        cap |= {"markeredgewidth": 1.6, "linewidth": 1.6, "color": colour, "zorder": 3}
        plot.axes.plot([low[0], high[0]], [low[1], high[1]], **cap)
    plot.axes.plot(
        [point.x],
        [point.y],
        linestyle="none",
        marker=marker(look),
        markersize=marker_size(marker(look), _radius(point)),
        markerfacecolor=colour,
        markeredgecolor=stand_in("page"),
        markeredgewidth=1.4,
        gid=f"point-{index}",
        clip_on=False,
    )


def _bars(plot: Plot, point: Point) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return both ends of each error bar, in the axes' own units."""
    bars = []
    if point.spread is not None and is_drawable(point.spread) and point.spread > 0:
        low, high = plot.clamp(point.y - point.spread), plot.clamp(point.y + point.spread)
        bars.append(((point.x, low), (point.x, high)))
    if point.x_spread is not None and is_drawable(point.x_spread) and point.x_spread > 0:
        left, right = max(point.x - point.x_spread, plot.x.low), min(point.x + point.x_spread, plot.x.high)
        bars.append(((left, point.y), (right, point.y)))
    return bars


def _radius(point: Point) -> float:
    return 6.5 if point.emphasis else 4.8


def _name_points(plot: Plot, points: list[Point], levels: list[Level], looks: list[int]) -> list[KeyEntry]:
    """Write names where they fit, else numbers; return the key of what the drawing does not name."""
    widest = (plot.frame.right - plot.frame.left) * _SHARE
    names = [shorten(point.name, FONT, widest) for point in points]
    if len(points) <= _MOST_NAMED and _write_labels(plot, points, names, levels):
        return []
    numbers = [str(index + 1) for index in range(len(points))]
    by_number = [
        KeyEntry(p.name, series_role(look), number=i + 1)
        for i, (p, look) in enumerate(zip(points, looks, strict=True))
    ]
    level_keys = [level_key(level) for level in levels]
    if len(points) > _MOST_NUMBERED:
        return level_keys
    if _write_labels(plot, points, numbers, levels):
        return by_number
    if _write_labels(plot, points, numbers, []):
        return by_number + level_keys
    return [marker_key(point.name, look) for point, look in zip(points, looks, strict=True)] + level_keys


def _write_labels(plot: Plot, points: list[Point], words: list[str], levels: Sequence[Level]) -> bool:
    """Write a word per point and the name of each level if all have room; tell whether they had."""
    offers: list[list[Place]] = []
    for point, word in zip(points, words, strict=True):
        width = measure_width(word, FONT) * (_BOLD if point.emphasis else 1.0)
        offers.append(list(offer_places(*plot.at(point.x, point.y), width, _LABEL_HEIGHT, _radius(point))))
    for level in levels:
        offers.append(_offer_along(plot, level))
    frame = plot.frame
    inside = Box(frame.left + 2, frame.top - 12, plot.size.width - 1, frame.bottom - 2)
    placed = place_labels(offers, _find_obstacles(plot, points, levels), inside)
    if placed is None:
        return False
    roles = ["label strong" if point.emphasis else "label" for point in points] + ["label soft"] * len(levels)
    content = [*words, *(_shorten_level(plot, level) for level in levels)]
    for place, role, word in zip(placed, roles, content, strict=True):
        if place.leader:
            leader = place.leader
            plot.add_leader((leader.x0, leader.y0), (leader.x1, leader.y1), "soft")
        plot.texts.append(Text(place.anchor_x, place.box.bottom - 3.5, word, role, place.anchor))
    return True


def _shorten_level(plot: Plot, level: Level) -> str:
    return shorten(level.name, FONT, (plot.frame.right - plot.frame.left) * _SHARE)


def _offer_along(plot: Plot, level: Level) -> list[Place]:
    """Offer places for the name of a level line: above it and below it, from its right end to its left."""
    width = measure_width(_shorten_level(plot, level), FONT)
    frame, down = plot.frame, plot.at(plot.x.low, level.y)[1]
    steps = int(max(0.0, frame.right - frame.left - width - 4) // 12) + 1
    rights = [frame.right - 2 - 12 * step for step in range(steps)]
    tops = (down - 3 - _LABEL_HEIGHT, down + 3)
    return [
        Place(Box(right - width, top, right, top + _LABEL_HEIGHT), None, "end")
        for right in rights
        for top in tops
    ]


def _find_obstacles(plot: Plot, points: list[Point], levels: Sequence[Level]) -> list[Obstacle]:
    """Return what no label may cover: markers, error bars and level lines."""
    obstacles = []
    for index, point in enumerate(points):
        (across, down), radius = plot.at(point.x, point.y), _radius(point)
        obstacles.append(Obstacle(Box(across - radius, down - radius, across + radius, down + radius), index))
        for low, high in _bars(plot, point):
            (left, bottom), (right, top) = plot.at(*low), plot.at(*high)
            obstacles.append(Obstacle(Box(left - _CAP, top - _CAP, right + _CAP, bottom + _CAP), index))
    for level in levels:
        down = plot.at(plot.x.low, level.y)[1]
        obstacles.append(Obstacle(Box(plot.frame.left, down - 1, plot.frame.right, down + 1), solid=False))
    return obstacles
