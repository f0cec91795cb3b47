"""What the sections show."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import aerogel
from aerogel.condense.account import Run, open_run
from aerogel.condense.codecs.naming import parse_codec
from aerogel.condense.comparison import Row
from aerogel.condense.config import LABEL_KINDS
from aerogel.condense.exhibits import NAMES, describe_sections, name_row
from aerogel.measure import Measurement
from aerogel.report import Block, Curve, Pictures, Scatter, TableBlock
from tests.unit.condense import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("exhibits") / "run"
    found = tiny.sources(channels=3)
    aerogel.condense(found.train, test=found.test, config=tiny.config(), out=folder)
    return open_run(folder)


def blocks(run: Run, kind: type[Block]) -> list[Block]:  # type: ignore[valid-type]
    return [
        block for section in describe_sections(run) for block in section.blocks if isinstance(block, kind)
    ]


def test_every_kind_of_labels_has_a_name() -> None:
    assert set(NAMES) == set(LABEL_KINDS)
    row = Row("hard", "random", Measurement("accuracy", 1.0, "%"), 1, 0, 1.0)
    assert name_row(row) == "random images, hard labels"
    assert name_row(replace(row, images="chosen")) == "hard labels"
    assert name_row(replace(row, images="all")) == "all real images, hard labels"
    assert name_row(replace(row, images="chosen", views="plain")) == "hard labels, not augmented"
    assert name_row(replace(row, labels="stored-top5")) == "random images, all labels stored, top 5, fp16"
    for kind in ("stored-fp16", "stored-fp32"):
        assert NAMES[kind] == parse_codec(kind).title


def test_labels_of_a_codec_stand_in_every_table_and_on_the_chart(run: Run) -> None:
    added = [
        Row(kind, "chosen", Measurement("accuracy", 50.0, "%"), size, 0, 1e-3)
        for kind, size in (("stored-pruned2+int8", 321), ("stored-vq256", 123))
    ]
    coded = replace(run, rows=(*run.rows, *added))
    (scatter,) = blocks(coded, Scatter)
    assert isinstance(scatter, Scatter)
    assert {"stored, 1 in 2, int8", "stored, vq 256"} <= {point.name for point in scatter.points}
    tables = [block for block in blocks(coded, TableBlock) if isinstance(block, TableBlock)]
    numbers = next(table for table in tables if "learning rate" in table.header)
    assert ("all labels stored, codebook of 256", "chosen", 123) in {row[:3] for row in numbers.rows}
    storage = {row[0]: row for row in next(table for table in tables if "note" in table.header).rows}
    assert storage["labels of one epoch in 2 stored, int8"][1] == 321
    epochs = run.config.student.fit.epochs
    assert storage["labels of one epoch in 2 stored, int8"][4] == f"{-(-epochs // 2)} epochs of 6 views"
    assert storage["all labels stored, codebook of 256"][4] == f"{epochs} epochs of 6 views"


def test_pictures_are_the_stored_images_in_rows_of_a_class(run: Run) -> None:
    (shown,) = blocks(run, Pictures)
    assert isinstance(shown, Pictures)
    assert [picture.caption for picture in shown.images] == ["bar", "bar", "dot", "dot", "ring", "ring"]  # type: ignore[union-attr]
    assert shown.columns == 2 and shown.pixelated


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("confident", "recognised best were kept"),
        ("representative", "Of each group"),
        ("random", "by chance"),
    ],
)
def test_the_choice_of_images_is_told(run: Run, order: str, words: str) -> None:
    selection = replace(run.config.selection, order=order)  # type: ignore[arg-type]
    images, *_ = describe_sections(replace(run, config=replace(run.config, selection=selection)))
    assert words in images.text


def test_an_update_of_the_pixels_is_told(run: Run) -> None:
    images, *_ = describe_sections(run)
    assert "pixels were then moved" not in images.text
    facts = {**run.facts, "refined": {"steps": 40, "gap_before": 0.25, "gap_after": 0.1}}
    data = copy.copy(run.data)
    data.manifest = replace(data.manifest, facts=facts)
    images, *_ = describe_sections(replace(run, data=data))
    assert "moved in 40 steps" in images.text and "fell from 0.25 to 0.1" in images.text


def test_the_student_on_all_images_is_a_level_and_no_point(run: Run) -> None:
    whole = Row("hard", "all", Measurement("accuracy", 91.5, "%"), 72, 0, 1e-3, "convnet")
    other = replace(whole, images="chosen", network="vit-t")
    (scatter,) = blocks(replace(run, rows=(*run.rows, whole, other)), Scatter)
    assert isinstance(scatter, Scatter)
    assert [level.y for level in scatter.levels] == [run.teacher_accuracy.value, 91.5]
    assert len(scatter.points) == 3


def test_the_scatter_holds_every_kind_and_the_backbone(run: Run) -> None:
    (scatter,) = blocks(run, Scatter)
    assert isinstance(scatter, Scatter)
    assert [point.name for point in scatter.points] == ["label generator", "hard labels", "with backbone"]
    ours, _, whole = scatter.points
    assert ours.emphasis and ours.x == run.delta_bytes
    assert whole.x == run.storage["label generator and backbone"] and whole.y == ours.y
    assert [level.y for level in scatter.levels] == [run.teacher_accuracy.value]


def test_storage_names_the_alternatives(run: Run) -> None:
    table = next(block for block in blocks(run, TableBlock) if "note" in block.header)  # type: ignore[union-attr]
    assert isinstance(table, TableBlock)
    sizes = {row[0]: row[1] for row in table.rows}
    assert sizes["the teacher itself, fp16"] == run.teacher_bytes
    assert sizes["label generator"] == run.delta_bytes
    assert {"images", "label generator with its backbone", "hard labels", "the source's pixels"} <= set(sizes)


def test_stored_labels_grow_past_the_generator_at_break_even(run: Run) -> None:
    curve = next(block for block in blocks(run, Curve) if "Bytes" in block.title)  # type: ignore[union-attr]
    assert isinstance(curve, Curve)
    lines = {series.name: series for series in curve.series}
    stored, ours = lines["all labels stored, fp16"], lines["label generator"]
    for epoch, theirs, flat in zip(stored.x, stored.y, ours.y, strict=True):
        assert (theirs > flat) == (epoch > run.even_epochs)
    assert run.config.student.fit.epochs in stored.x


def test_a_teacher_lighter_than_the_generator_is_said_to_be(run: Run) -> None:
    text = next(
        section.text for section in describe_sections(run) if section.title == "What the labels weigh"
    )
    light = "the teacher itself is lighter" in text
    assert light == (run.teacher_bytes <= run.delta_bytes)


def test_training_is_drawn_epoch_by_epoch(run: Run) -> None:
    curves = [block for block in blocks(run, Curve) if "learns" in block.title]  # type: ignore[union-attr]
    losses = [run.facts["projector"]["losses"], run.facts["teacher"]["losses"]]
    assert [curve.series[0].y for curve in curves] == [tuple(each) for each in losses]  # type: ignore[union-attr]
    assert all(curve.series[0].x == (1, 2, 3, 4, 5, 6) for curve in curves)  # type: ignore[union-attr]
    assert all(each[-1] < each[0] for each in losses)


def test_an_imported_teacher_has_no_curve(run: Run) -> None:
    facts = {**run.facts, "teacher": {**run.facts["teacher"], "losses": []}}
    data = copy.copy(run.data)
    data.manifest = replace(data.manifest, facts=facts)
    titles = [block.title for block in blocks(replace(run, data=data), Curve)]  # type: ignore[union-attr]
    assert "The teacher learns" not in titles and "The label generator learns" in titles


def test_fidelity_is_that_of_the_manifest(run: Run) -> None:
    table = next(block for block in blocks(run, TableBlock) if "views" in block.header)  # type: ignore[union-attr]
    assert isinstance(table, TableBlock)
    found = run.facts["projector"]["fidelity"]
    assert [row[0] for row in table.rows] == ["augmented", "cutmix", "condensed"]
    assert [row[1] for row in table.rows] == [f"{100 * each['agreement']:.1f}" for each in found]


def test_what_the_codec_costs_has_a_table_of_its_own_where_it_was_measured(run: Run) -> None:
    def titles(facts: dict[str, Any]) -> list[str]:
        data = copy.copy(run.data)
        data.manifest = replace(data.manifest, facts={**run.facts, "projector": facts})
        return [block.title for block in blocks(replace(run, data=data), TableBlock)]  # type: ignore[union-attr]

    known = run.facts["projector"]
    title = "The adapter as stored, in float16, against the adapter as trained"
    assert title in titles(known)
    assert title not in titles({name: value for name, value in known.items() if "codec" not in name})
