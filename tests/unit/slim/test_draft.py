"""A draft ranks and weighs, and neither trains nor changes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aerogel.errors import ConfigError, FolderExistsError
from aerogel.slim.draft import draft_plan
from aerogel.slim.plan import load_plan
from aerogel.slim.sources import Sources
from aerogel.slim.surgery import apply_plan
from aerogel.zoo.photos import open_photos
from tests.unit.slim import tiny
from tests.unit.slim.runs import config, same, snapshot, teacher, weights


@pytest.fixture
def sources(photos: Path) -> Sources:
    return Sources.split(teacher(), open_photos(photos), 2, 0)


def test_the_plan_is_written_and_what_it_leaves_is_weighed(sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    before, held = snapshot(sources.teacher), weights(sources.teacher)
    draft = draft_plan(config(), sources, path)
    assert load_plan(path) == draft.plan and draft.plan.layout == "stock"
    slim = apply_plan(sources.teacher, draft.plan)
    assert draft.after["parameters"] == sum(each.numel() for each in slim.parameters())
    assert draft.before["parameters"] == sum(each.numel() for each in sources.teacher.parameters())
    table = {name: (was, now) for name, was, now in draft.list_weights()}
    assert table["channels of the residual stream"] == (16, 8)
    assert table["MLP channels of a block"] == (32, 16)
    assert table["heads"] == (2, 2)
    assert snapshot(sources.teacher) == before and same(weights(sources.teacher), held)


def test_a_file_in_the_way_is_kept_unless_asked(sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match="--overwrite"):
        draft_plan(config(), sources, path)
    assert path.read_text(encoding="utf-8") == "mine"
    draft_plan(config(), sources, path, overwrite=True)
    load_plan(path)


def test_a_teacher_in_half_precision_stays_so(photos: Path) -> None:
    model = tiny.build(dtype=torch.float16)
    before = snapshot(model)
    draft = draft_plan(config(), Sources.split(model, open_photos(photos), 2, 0))
    assert draft.plan.widths["embedding"] == 12 and snapshot(model) == before


def test_uneven_blocks_are_drafted_too(photos: Path) -> None:
    sources = Sources.split(tiny.build(dtype=torch.float32), open_photos(photos), 2, 0)
    draft = draft_plan(config(layout="flex", score={"ranking": "mlp"}), sources)
    widths = [draft.plan.widths[f"blocks.{index}.mlp"] for index in range(3)]
    assert draft.plan.layout == "flex" and sum(widths) == 60
    assert draft.after["mlp_dim"] == round(sum(widths) / len(widths))


def test_widths_that_do_not_fit_are_refused(sources: Sources) -> None:
    with pytest.raises(ConfigError, match="leaves at least"):
        draft_plan(config(ratio=0.95), sources)
