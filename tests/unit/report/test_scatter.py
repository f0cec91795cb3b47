from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import numpy as np

from aerogel.report.axes import FONT
from aerogel.report.document import Level, Point, Scatter
from aerogel.report.labels import Box, measure_width
from aerogel.report.scatter import draw_scatter


def boxes(svg: str) -> dict[str, Box]:
    """Return where each label stands, as wide as it could be."""
    found = {}
    for text in ElementTree.fromstring(svg).iter("text"):
        if "label" not in (text.get("class") or "").split():
            continue
        words, x, y = text.text or "", float(text.get("x", "nan")), float(text.get("y", "nan"))
        width = measure_width(words, FONT)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "")]
        found[words] = Box(left, y - 12, left + width, y + 3)
    return found


def test_every_point_and_level_is_named_without_overlap() -> None:
    points = [
        Point("hard labels", 2e1, 81.6, 0.9),
        Point("one per image", 4.1e3, 86.2, 0.7),
        Point("generator", 8.2e3, 92.8, 0.4, emphasis=True),
        Point("full, fp16", 1.5e5, 93.1, 0.4),
        Point("full, fp32", 3e5, 93.2, 0.3),
        Point("random images", 2.9e5, 90.4, 0.8, x_spread=1e4),
    ]
    chart = draw_scatter(
        Scatter("t", "bytes", "accuracy", points, x_unit="B", levels=[Level("teacher", 97)]), "s"
    )
    for view in chart.views:
        assert view.key == ()
        placed = boxes(view.svg)
        assert set(placed) == {point.name for point in points} | {"teacher"}
        assert not any(one.overlaps(other) for one, other in itertools.combinations(placed.values(), 2))
    assert chart.rows[2] == ("generator", "8.2 kB", "92.8 ± 0.4")
    assert chart.rows[5][1] == "290 kB ± 10 kB"


def test_crowds_are_numbered_and_multitudes_only_listed() -> None:
    draws = np.random.default_rng(0).uniform(1, 9, (400, 2)).tolist()
    crowd = [Point(f"a rather long name for point {step}", x, y) for step, (x, y) in enumerate(draws[:25])]
    narrow = draw_scatter(Scatter("t", "x", "y", crowd, log_x=False), "s").views[1]
    assert [entry.number for entry in narrow.key] == list(range(1, 26))
    placed = boxes(narrow.svg)
    assert set(placed) == {str(number) for number in range(1, 26)}
    assert not any(one.overlaps(other) for one, other in itertools.combinations(placed.values(), 2))
    multitude = [Point(f"point {step}", x, y) for step, (x, y) in enumerate(draws)]
    chart = draw_scatter(Scatter("t", "x", "y", multitude, log_x=False), "s")
    assert boxes(chart.views[1].svg) == {}
    assert len(chart.rows) == 400


def test_groups_share_a_colour_and_are_explained() -> None:
    points = [Point(f"{group} {x}", x, x, group=group) for group in ("ten", "fifty") for x in (1, 2)]
    view = draw_scatter(Scatter("t", "x", "y", points, log_x=False), "s").views[0]
    assert [entry.name for entry in view.key] == ["ten", "fifty"]
    assert ("var(--s1)" in view.svg, "var(--s2)" in view.svg, "var(--s3)" in view.svg) == (True, True, False)


def test_points_that_cannot_be_drawn_are_named_below() -> None:
    points = [
        Point("fine", 10, 1),
        Point("free", 0, 2),
        Point("lost", 5, math.nan),
        Point("odd", 5, 3, math.nan),
    ]
    chart = draw_scatter(Scatter("t", "x", "y", points), "s")
    assert chart.notes == ("Cannot be drawn, see the numbers: free, lost.",)
    assert [row[0] for row in chart.rows] == ["fine", "free", "lost", "odd"]
    assert set(boxes(chart.views[0].svg)) == {"fine", "odd"}
    assert draw_scatter(Scatter("t", "x", "y", []), "s").rows == ()
