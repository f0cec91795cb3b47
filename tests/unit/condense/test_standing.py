"""Scores come from the rows that are there, seed by seed, and from no others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from aerogel.condense.comparison import Row
from aerogel.condense.config import StudentConfig
from aerogel.condense.exhibits import name_labels
from aerogel.condense.standing import (
    cross_networks,
    describe_students,
    list_networks,
    rank_rows,
    write_percent,
    write_share,
)
from aerogel.measure import Measurement, mean_std, score_difference
from aerogel.report import Report, render_report


def row(labels: str, images: str, *values: float, network: str = "convnet", views: str = "augmented") -> Row:
    accuracy = mean_std(values, name="accuracy", unit="%")
    return Row(labels, images, accuracy, 10, 0, 1e-3, network, views, values)


MAIN = [
    row("generator", "chosen", 80.0, 82.0),
    row("stored-fp16", "chosen", 84.0, 86.0),
    row("hard", "chosen", 60.0, 64.0),
    row("stored-fp16", "random", 80.0, 81.0),
]
ALL = [row("generator", "random", 78.0, 79.0), row("hard", "all", 90.0, 91.0)]
PLAIN = [
    row("stored-fp16", "chosen", 70.0, 72.0, views="plain"),
    row("stored-fp16", "random", 69.0, 69.0, views="plain"),
]
OTHERS = [
    row("generator", "chosen", 75.0, 76.0, network="vit-t"),
    row("hard", "chosen", 50.0, 52.0, network="vit-t"),
]


def test_only_labels_that_random_images_had_are_ranked() -> None:
    (only,) = rank_rows(MAIN, "convnet")
    assert only.labels == "stored-fp16"
    assert only.ior.value == pytest.approx(0.045) and only.ior.samples == 2
    assert (only.hlr, only.lrs, only.ars) == (None, None, None)
    assert rank_rows(MAIN[:3], "convnet") == ()
    assert rank_rows(OTHERS, "convnet") == ()


def test_all_scores_seed_by_seed() -> None:
    ours, stored = rank_rows(MAIN + ALL + PLAIN + OTHERS, "convnet")
    assert (ours.labels, stored.labels) == ("generator", "stored-fp16")
    assert ours.hlr is not None and ours.hlr.value == pytest.approx((0.30 + 0.27) / 2)
    assert ours.lrs is not None and ours.ars is None
    each = [score_difference(0.5 * 0.02 - 0.5 * 0.30), score_difference(0.5 * 0.03 - 0.5 * 0.27)]
    assert ours.lrs.value == pytest.approx(sum(each) / 2)
    assert ours.lrs.spread == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert stored.ars is not None
    arses = [score_difference(0.5 * 0.04 + 0.5 * 0.01), score_difference(0.5 * 0.05 + 0.5 * 0.03)]
    assert stored.ars.value == pytest.approx(sum(arses) / 2)
    spelled = ours.to_dict()
    assert spelled["labels"] == "generator" and spelled["ars"] is None
    assert spelled["lrs"]["samples"] == 2


def test_rows_of_an_earlier_release_are_ranked_by_their_means() -> None:
    old = [replace(each, values=(), network="") for each in MAIN]
    (only,) = rank_rows(old, "convnet")
    assert only.ior.value == pytest.approx(0.045) and only.ior.spread is None


def test_networks_stand_side_by_side() -> None:
    assert cross_networks(MAIN + ALL, "convnet") == ()
    crossed = cross_networks(MAIN + ALL + PLAIN + OTHERS, "convnet")
    assert [(each.labels, each.images) for each in crossed] == [("generator", "chosen"), ("hard", "chosen")]
    assert list_networks(crossed) == ("convnet", "vit-t")
    assert crossed[1].accuracies["vit-t"].value == pytest.approx(51.0)


def test_figures_are_written_with_their_spread() -> None:
    assert write_share(None) == write_percent(None) == ""
    assert write_share(Measurement("lrs", 0.4321, "", 0.01, "std", 3)) == "0.432 ± 0.010"
    assert write_percent(Measurement("accuracy", 87.25, "%")) == "87.2"


def test_the_sections_are_those_that_have_rows() -> None:
    def sections(rows: list[Row]) -> list[Any]:
        run: Any = SimpleNamespace(rows=rows, config=SimpleNamespace(student=StudentConfig()))
        return describe_students(run, name_labels)

    assert sections(MAIN[:3]) == []
    found = sections(MAIN + ALL + OTHERS)
    assert [each.title for each in found] == ["Other networks", "What the images themselves are worth"]
    coded = [replace(each, labels="stored-int8") for each in MAIN + OTHERS if each.labels == "generator"]
    found = sections(MAIN + ALL + OTHERS + coded)
    page = render_report(Report("Title", sections=found))
    assert "all labels stored, int8" in page
    assert "vit-t (%)" in page and "HLR (lower is better)" in page
