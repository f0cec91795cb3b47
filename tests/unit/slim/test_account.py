"""The account of a slimming says what its files say, also where that is no praise."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aerogel.core.manifests import Manifest
from aerogel.errors import AerogelError, DataError, IntegrityError
from aerogel.measure import format_bytes
from aerogel.report import Curve, Receipt, ReceiptLine, Report, render_report
from aerogel.slim.account import Run, describe_receipt, describe_run, open_run, write_lede
from aerogel.slim.api import Slimmed
from tests.unit.slim import runs, tiny

pytestmark = pytest.mark.usefixtures("no_clock")


@pytest.fixture(scope="module")
def read(finished: Slimmed) -> Run:
    return open_run(finished.folder)


def line(receipt: Receipt, label: str) -> ReceiptLine:
    return next(each for each in (*receipt.paid, *receipt.saved, *receipt.lost) if each.label == label)


def change(run: Run, **facts: Any) -> Run:
    """Return the run with other facts in the manifest of its model."""
    model: Manifest = replace(run.model, facts={**run.model.facts, **facts})
    return replace(run, model=model)


def titles(report: Report) -> list[str]:
    return [section.title for section in report.sections]


def test_the_page_is_whole_and_shows_every_part(finished: Slimmed) -> None:
    report = describe_run(finished.folder)
    assert titles(report) == ["Masks before and after", "Agreement with the teacher", "Losses", "What stays"]
    page = render_report(report)
    assert page.rstrip().endswith("</html>") and "data:image/jpeg" in page
    assert report.command == "aerogel test"
    assert json.loads(json.dumps(report.config))["type"] == "slim"
    assert report.lede == (
        "The image encoder of SamModel went from 16 to 8 channels and from 32 to 16 MLP channels in each of "
        "2 blocks, which keep their 2 heads. It learned from 4 photos; 2 more were kept back to judge it on. "
        "No label was used."
    )


def test_heads_that_went_are_told(read: Run) -> None:
    told = write_lede(change(read, before={**read.before, "heads": 4}))
    assert (
        "16 to 8 channels, from 4 to 2 heads and from 32 to 16 MLP channels in each of 2 blocks. It" in told
    )


def test_the_receipt_holds_the_files_figures(read: Run) -> None:
    receipt = describe_receipt(read)
    assert [each.label for each in receipt.paid] == [
        "rotating (embedding)",
        "ranking (embedding)",
        "fitting by least squares",
        "aligning (bottleneck)",
        "rotating (bottleneck)",
        "ranking (bottleneck)",
        "fitting by least squares",
        "aligning (embedding)",
        "in all",
    ]
    assert line(receipt, "fitting by least squares").note == "4 photos"
    assert line(receipt, "aligning (bottleneck)").note == "2 epochs"
    before, after = read.before, read.after
    saved = 100 * (1 - after["encoder_parameters"] / before["encoder_parameters"])
    assert line(receipt, "encoder parameters").value == f"{saved:.1f} %"
    assert line(receipt, "encoder parameters").note == "10.06 k instead of 19.79 k"
    assert line(receipt, "bytes").value == format_bytes(before["bytes"] - after["bytes"])
    row = next(each for each in read.agreement() if each["prompt"] == "stored")
    assert line(receipt, "agreement, stored point").value == f"{100 * (1 - row['iou']['mean']):.1f} points"
    assert receipt.number == f"sha256 {read.model.digest[:16]}"


@pytest.mark.parametrize(("count", "written"), [(3.5e9, "3.50 G"), (2e6, "2.00 M"), (800, "800.00")])
def test_counts_are_written_in_their_own_unit(read: Run, count: float, written: str) -> None:
    heavy = change(read, before={**read.before, "macs": count})
    assert line(describe_receipt(heavy), "linear MACs").note.endswith(f"instead of {written}")


def test_the_time_says_where_it_was_taken(read: Run) -> None:
    assert line(describe_receipt(read), "time for an image").note.endswith("encoder, one thread")
    stored = read.exhibits.facts["latency"]["after"]
    facts = {"latency": {"before": stored, "after": {**stored, "note": "cuda:0, 4 thread(s)"}}}
    elsewhere = replace(read, exhibits=replace(read.exhibits, facts=facts))
    assert line(describe_receipt(elsewhere), "time for an image").note.endswith("encoder, cuda:0")


def test_a_model_that_became_heavier_saved_no_bytes(read: Run) -> None:
    heavier = change(read, after={**read.after, "bytes": read.before["bytes"] + 1})
    assert line(describe_receipt(heavier), "bytes").value == "0 B"


def test_losses_have_a_value_for_each_epoch(finished: Slimmed) -> None:
    section = next(each for each in describe_run(finished.folder).sections if each.title == "Losses")
    curves = [block for block in section.blocks if isinstance(block, Curve)]
    assert [curve.title for curve in curves] == ["Aligning by the bottleneck", "Aligning by the embedding"]
    names = {series.name for series in curves[0].series}
    assert names == {"window qkv", "global qkv", "hidden", "output"}
    # The features weigh in for one epoch of two.
    assert {len(series.x) for series in curves[0].series} == {1, 2}


def test_learning_masks_is_on_the_receipt_and_among_the_losses(
    finished: Slimmed, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.folder, out, ignore=shutil.ignore_patterns("model", "exhibits", "re*"))
    runs.run(photos, out, masks={"epochs": 3, "points": 2})
    assert line(describe_receipt(open_run(out)), "learning masks").note == "3 epochs"
    section = next(each for each in describe_run(out).sections if each.title == "Losses")
    last = [block for block in section.blocks if isinstance(block, Curve)][-1]
    assert last.title == "Aligning by the masks"
    assert {series.name: len(series.x) for series in last.series} == {"masks": 3, "output": 3, "scores": 3}


def test_widths_and_epochs_that_differ_are_written_as_they_are(photos: Path, tmp_path: Path) -> None:
    import torch

    found = runs.run(
        photos,
        tmp_path,
        tiny.build(dtype=torch.float32),
        layout="flex",
        score={"ranking": "mlp", "normalizer": "mean"},
        reconstruct={"photos": 0},
        align={"epochs": 1, "repair_qkv": False},
        bottleneck_epochs=2,
    )
    widths = [found.plan.widths[f"blocks.{index}.mlp"] for index in range(3)]
    receipt = describe_receipt(open_run(tmp_path))
    notes = [line(receipt, f"aligning ({name})").note for name in ("bottleneck", "embedding")]
    assert notes == ["2 epochs", "1 epoch"]
    report = describe_run(tmp_path)
    assert f"to {min(widths)} to {max(widths)} MLP channels" in report.lede
    assert "global qkv" in render_report(report), "a loss of zero has its place on a logarithmic scale"


def test_one_photo_kept_back_and_nothing_cut_still_give_a_page(photos: Path, tmp_path: Path) -> None:
    found = runs.run(photos, tmp_path, ratio=0.0, held_out=1, align={"epochs": 1}, method="one-step")
    report = describe_run(tmp_path)
    assert "50.0 %" not in report.title and "100.0 %" in report.title
    assert found.plan.is_identity and "</html>" in render_report(report)
    assert line(report.receipt or Receipt(), "bytes").value == "0 B"


def test_without_agreement_or_pictures_there_is_still_an_account(read: Run, finished: Slimmed) -> None:
    bare = change(read, agreement={})
    assert bare.agreement() == [] and describe_receipt(bare).lost == ()


@pytest.mark.parametrize("missing", ["result.json", "recipe.yaml"])
def test_an_unfinished_run_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"finished slimming, with {missing}.*aerogel slim"):
        open_run(folder)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none at"):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", "[1]", '{"model": "long"}'])
def test_damaged_times_are_refused(folder: Path, content: str) -> None:
    (folder / "timings.json").write_text(content, encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"timings\.json of a slimming"):
        open_run(folder)


def test_a_folder_that_lost_a_part_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "exhibits")
    with pytest.raises(AerogelError, match="exhibits"):
        open_run(folder)
