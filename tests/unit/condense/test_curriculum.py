"""Groups of classes, and what is kept and shown of a class-incremental run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.condense.config import StudentConfig
from aerogel.condense.curriculum import (
    Curriculum,
    Lane,
    arrange_classes,
    describe_curricula,
    name_lane,
    read_curricula,
    sum_up_steps,
    write_curriculum,
)
from aerogel.condense.exhibits import name_labels
from aerogel.errors import ConfigError, DataError, IntegrityError
from aerogel.report import Curve, Report, TableBlock, render_report

FOUND = Curriculum(
    (2, 4),
    (
        Lane("generator", "chosen", sum_up_steps([[90.0, 80.0], [92.0, 84.0]])),
        Lane("hard", "random", sum_up_steps([[70.0, 40.0], [72.0, 44.0]])),
    ),
)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 5))
def test_every_class_comes_once_in_groups_of_like_size(classes: int, steps: int, seed: int) -> None:
    if steps > classes:
        with pytest.raises(ConfigError, match=f"from 2 to {classes} steps"):
            arrange_classes(classes, steps, seed)
        return
    groups = arrange_classes(classes, steps, seed)
    assert sorted(label for group in groups for label in group) == list(range(classes))
    sizes = [len(group) for group in groups]
    assert len(groups) == steps and max(sizes) - min(sizes) <= 1
    assert arrange_classes(classes, steps, seed) == groups


def test_another_seed_is_another_order() -> None:
    assert len({arrange_classes(10, 5, seed) for seed in range(4)}) == 4


def test_one_step_is_no_curriculum() -> None:
    with pytest.raises(ConfigError, match="got 1"):
        arrange_classes(10, 1, 0)


def test_steps_are_summed_up_over_seeds() -> None:
    first, last = FOUND.lanes[0].accuracies
    assert (first.value, last.value) == (91.0, 82.0)
    assert first.spread == pytest.approx(2**0.5)
    assert FOUND.lanes[0].mean.value == pytest.approx(86.5)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    assert read_curricula(tmp_path) == ()
    longer = Curriculum((1, 2, 3, 4), (Lane("hard", "chosen", sum_up_steps([[1.0, 2.0, 3.0, 4.0]])),))
    for each in (longer, FOUND):
        write_curriculum(tmp_path, each)
    assert read_curricula(tmp_path) == (FOUND, longer)
    (tmp_path / "continual" / "2.json").write_text('{"classes": [1]}', encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"2\.json"):
        read_curricula(tmp_path)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_section_shows_every_lane(seeds: tuple[int, ...]) -> None:
    config = SimpleNamespace(student=StudentConfig(seeds=seeds))
    bare: Any = SimpleNamespace(curricula=(), config=config)
    assert describe_curricula(bare, name_labels) == []
    run: Any = SimpleNamespace(curricula=(FOUND,), config=config)
    (section,) = describe_curricula(run, name_labels)
    curve, table = section.blocks
    assert isinstance(curve, Curve) and isinstance(table, TableBlock)
    assert [series.x for series in curve.series] == [(2, 4), (2, 4)]
    assert (curve.series[0].spread is None) == (len(seeds) == 1)
    assert name_lane(FOUND.lanes[1], name_labels) == "random images, hard labels"
    assert table.rows[0] == ("label generator", "82.0 ± 2.8", "86.5")
    assert "2 steps" in render_report(Report("Title", sections=[section]))


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [4, 2]},
        {"classes": []},
        {"classes": "24"},
        {"classes": [2.0, 4.0]},
        {"lanes": None},
        {"lanes": [{"labels": "hard", "images": "chosen", "accuracies": []}]},
        {"lanes": [{"labels": 1, "images": "chosen", "accuracies": []}]},
        {"lanes": ["hard"]},
    ],
)
def test_what_is_no_result_is_refused(change: dict[str, Any]) -> None:
    assert Curriculum.from_dict(FOUND.to_dict()) == FOUND
    with pytest.raises(DataError, match="run it again"):
        Curriculum.from_dict(FOUND.to_dict() | change)
