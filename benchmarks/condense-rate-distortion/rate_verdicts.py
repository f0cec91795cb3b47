"""Judge label generators against stored labels by accuracy and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, sqrt
from statistics import fmean, stdev
from typing import Any

FULL = "stored-fp16"
GENERATOR, CODEC, OTHER = "generator", "codec", "other"
CORRECTED = "corrected"  # a generator with stored residuals
SMALL, LOW = 0.01, 0.02  # shares of the full labels' bytes: the generator's, and below which codecs compete
BAR = 0.5  # points below full labels
# Student's t that 2.5 % of chance lies above, by degrees of freedom; beyond ten, that of ten.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def compare_pairs(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Return how far ``first`` lies above ``second``, paired, with the 95 % interval of Student's t."""
    each = [ours - theirs for ours, theirs in zip(first, second, strict=True)]
    found = {"value": fmean(each), "low": None, "high": None, "pairs": len(each)}
    if len(each) > 1:
        half = _T[min(len(each) - 1, len(_T)) - 1] * stdev(each) / sqrt(len(each))
        found |= {"low": found["value"] - half, "high": found["value"] + half}
    return found


def find_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the upper hull of ``points`` (bytes, accuracy), on a logarithmic axis of bytes.

    It starts at the smallest point and rises: where more bytes bring nothing, it ends.
    """
    best: dict[float, float] = {}
    for size, accuracy in points:
        best[size] = max(accuracy, best.get(size, accuracy))
    hull: list[tuple[float, float]] = []
    for point in sorted(best.items()):
        if hull and point[1] <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def read_hull(hull: Sequence[tuple[float, float]], size: float) -> float | None:
    """Return the height of the hull at ``size`` bytes, None left of its start, its last height beyond it."""
    if not hull or size < hull[0][0]:
        return None
    for left, right in pairwise(hull):
        if size <= right[0]:
            return left[1] + _slope(left, right) * (log(size) - log(left[0]))
    return hull[-1][1]


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (log(right[0]) - log(left[0]))


def judge(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the verdicts on ``rows``; those that no row can decide yet are None.

    ``best_small``: the best generator of at most a hundredth of the full labels' bytes, and its gap to full
    labels. ``curve``: for every codec below two hundredths, whether the upper hull of the generators lies
    above its mean, and by how much the best generator that is no larger does. Generators with stored
    residuals count among them, with all their bytes; ``alone`` has the same without these.
    """
    alone = _judge_kinds(rows, (GENERATOR,))
    return {**_judge_kinds(rows, (GENERATOR, CORRECTED)), "alone": alone}


def _judge_kinds(rows: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    full = rows.get(FULL)
    generators = {name: row for name, row in rows.items() if row["kind"] in kinds}
    if full is None or not generators:
        return {"best_small": None, "curve": None}
    small = [name for name, row in generators.items() if row["bytes"] <= SMALL * full["bytes"]]
    return {"best_small": _judge_small(rows, small), "curve": _judge_curve(rows, generators, full["bytes"])}


def _judge_small(rows: Mapping[str, Mapping[str, Any]], small: Sequence[str]) -> dict[str, Any] | None:
    if not small:
        return None
    best = max(small, key=lambda name: (rows[name]["mean"], -rows[name]["bytes"]))
    gap = compare_pairs(rows[FULL]["values"], rows[best]["values"])
    return {
        "row": best,
        "bytes": rows[best]["bytes"],
        "share": rows[best]["bytes"] / rows[FULL]["bytes"],
        "gap": gap,
        "bar": BAR,
        "holds": gap["value"] <= BAR,
    }


def _judge_curve(
    rows: Mapping[str, Mapping[str, Any]], generators: Mapping[str, Mapping[str, Any]], full: int
) -> dict[str, Any]:
    hull = find_hull([(row["bytes"], row["mean"]) for row in generators.values()])
    codecs: dict[str, Any] = {}
    for name, row in rows.items():
        if row["kind"] != CODEC or row["bytes"] >= LOW * full:
            continue
        height = read_hull(hull, row["bytes"])
        within = [each for each in generators if generators[each]["bytes"] <= row["bytes"]]
        best = max(within, key=lambda each: generators[each]["mean"], default=None)
        codecs[name] = {
            "bytes": row["bytes"],
            "mean": row["mean"],
            "hull": height,
            "above": None if height is None else height > row["mean"],
            "best_no_larger": best,
            "lead": compare_pairs(generators[best]["values"], row["values"]) if best else None,
        }
    found = [each["above"] for each in codecs.values()]
    return {
        "hull": [list(point) for point in hull],
        "codecs": codecs,
        "not_above": [name for name, each in codecs.items() if each["above"] is False],
        "smaller_than_any_generator": [name for name, each in codecs.items() if each["above"] is None],
        "holds": all(found) if found else None,
    }


def merge(known: Mapping[str, Any], rows: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of ``rows`` and of the ``known`` ones that were made from the same, and verdicts."""
    kept = known.get("rows", {}) if known.get("made_from") == facts["made_from"] else {}
    found = {name: dict(row) for name, row in {**kept, **rows}.items()}
    full = found[FULL]["bytes"] if FULL in found else None
    for row in found.values():
        row["share"] = row["bytes"] / full if full else None
    return {**facts, "rows": found, "verdicts": judge(found)}
