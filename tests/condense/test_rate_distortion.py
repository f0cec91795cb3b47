"""The benchmark of accuracy against bytes: verdicts, how processes share it, rows from end to end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense import Pipeline
from aerogel.core.config import from_dict, load_config
from aerogel.errors import ConfigError, FolderConflictError
from aerogel.report import render_report
from tests.unit.condense.tiny import config, sources

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "condense-rate-distortion"


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Give what imports a module from the benchmark's folder, as its run.py does."""
    sys.path.insert(0, str(BENCHMARK))
    yield import_module
    sys.path.remove(str(BENCHMARK))
    for name in [name for name in sys.modules if name.startswith("rate_")]:
        del sys.modules[name]


def row(kind: str, size: int, *values: float) -> dict[str, Any]:
    mean = sum(values) / len(values)
    true = None if kind == "other" else {"agreement": 0.9, "kl": 0.1, "mse": 0.2, "samples": 100}
    seeds = len(values)
    return {
        "kind": kind,
        "bytes": size,
        "mean": mean,
        "std": 0.1,
        "values": list(values),
        "seeds": seeds,
        "fidelity": true,
    }


def made_rows() -> dict[str, Any]:
    return {
        "stored-fp16": row("codec", 1_000_000, 90.0, 90.2, 90.4),
        "generator-2-int4": row("generator", 2_000, 88.0, 88.0, 88.0),
        "generator-4-int8": row("generator", 9_000, 89.6, 89.9, 89.9),
        "generator-8-int8": row("generator", 20_000, 89.9, 90.0, 90.1),
        "stored-vq256": row("codec", 50_000, 90.0, 90.0, 90.0),
        "stored-pruned50+int8": row("codec", 15_000, 89.0, 89.0, 89.0),
        "stored-pruned5+vq256": row("codec", 12_000, 89.95, 89.95, 89.95),
        "stored-pruned50+vq256": row("codec", 1_500, 80.0, 80.0, 80.0),
        "hard": row("other", 500, 85.0, 85.0, 85.0),
    }


def test_hull_rises_and_is_concave_in_the_logarithm_of_bytes(load: Any) -> None:
    verdicts = load("rate_verdicts")
    points = [(10.0, 1.0), (100.0, 1.5), (1000.0, 3.0), (10_000.0, 2.0), (20.0, 0.5), (100_000.0, 3.5)]
    hull = verdicts.find_hull(points)
    assert hull == [(10.0, 1.0), (1000.0, 3.0), (100_000.0, 3.5)]
    assert verdicts.read_hull(hull, 100.0) == pytest.approx(2.0)
    assert verdicts.read_hull(hull, 10_000.0) == pytest.approx(3.25)
    assert verdicts.read_hull(hull, 10.0) == 1.0
    assert verdicts.read_hull(hull, 9.0) is None
    assert verdicts.read_hull(hull, 1e9) == 3.5
    assert verdicts.read_hull([], 1.0) is None
    assert verdicts.find_hull([(10.0, 1.0), (10.0, 2.0)]) == [(10.0, 2.0)]


def test_the_best_generator_within_a_hundredth_is_paired_with_full_labels(load: Any) -> None:
    best = load("rate_verdicts").judge(made_rows())["best_small"]
    assert best["row"] == "generator-4-int8"
    assert best["share"] == 0.009
    # Differences 0.4, 0.3 and 0.5: standard deviation 0.1, and 4.303 is Student's t for three.
    half = 4.303 * 0.1 / 3**0.5
    assert best["gap"]["value"] == pytest.approx(0.4)
    assert best["gap"]["low"] == pytest.approx(0.4 - half)
    assert best["gap"]["high"] == pytest.approx(0.4 + half)
    assert best["holds"]
    corrected = {"generator-4-int8+vq256@20": row("corrected", 9_900, 90.1, 90.2, 90.3)}
    found = load("rate_verdicts").judge(made_rows() | corrected)
    assert found["best_small"]["row"] == "generator-4-int8+vq256@20"
    assert found["best_small"]["gap"]["value"] == pytest.approx(0.0)
    assert found["alone"] == load("rate_verdicts").judge(made_rows())["alone"]
    assert found["alone"]["best_small"]["row"] == "generator-4-int8"
    assert found["curve"]["not_above"] == []
    rows = made_rows() | {"generator-4-int8": row("generator", 10_001, 90.0, 90.0, 90.0)}
    best = load("rate_verdicts").judge(rows)["best_small"]
    assert (best["row"], best["holds"]) == ("generator-2-int4", False)


def test_the_curve_is_held_against_every_codec_below_two_hundredths(load: Any) -> None:
    curve = load("rate_verdicts").judge(made_rows())["curve"]
    assert set(curve["codecs"]) == {"stored-pruned50+int8", "stored-pruned5+vq256", "stored-pruned50+vq256"}
    assert curve["not_above"] == ["stored-pruned5+vq256"]
    assert curve["smaller_than_any_generator"] == ["stored-pruned50+vq256"]
    assert not curve["holds"]
    above = curve["codecs"]["stored-pruned50+int8"]
    assert above["above"]
    assert above["best_no_larger"] == "generator-4-int8"
    assert above["lead"]["value"] == pytest.approx(0.8)
    rows = made_rows()
    del rows["stored-pruned5+vq256"], rows["stored-pruned50+vq256"]
    assert load("rate_verdicts").judge(rows)["curve"]["holds"]
    del rows["stored-pruned50+int8"]
    assert load("rate_verdicts").judge(rows)["curve"]["holds"] is None
    none = {"best_small": None, "curve": None}
    assert load("rate_verdicts").judge({"hard": rows["hard"]}) == {**none, "alone": none}


def test_rows_of_another_making_are_dropped(load: Any) -> None:
    merge, rows = load("rate_verdicts").merge, made_rows()
    known = merge({}, {"hard": rows["hard"]}, {"made_from": {"teacher": "a"}})
    assert known["rows"]["hard"]["share"] is None
    full = {"stored-fp16": rows["stored-fp16"]}
    found = merge(known, full, {"made_from": {"teacher": "a"}})
    assert set(found["rows"]) == {"hard", "stored-fp16"}
    assert found["rows"]["hard"]["share"] == 0.0005
    assert set(merge(known, full, {"made_from": {"teacher": "b"}})["rows"]) == {"stored-fp16"}


def test_the_page_says_every_row_and_verdict(load: Any) -> None:
    facts = {
        "made_from": {},
        "teacher_test_accuracy": 91.7,
        "rate": 1e-3,
        "epochs": 3,
        "images": 500,
        "backbone_bytes": 7,
    }
    figures = load("rate_verdicts").merge({}, made_rows(), facts)
    picture = load("rate_picture")
    words = picture.write_verdicts(figures["verdicts"])
    assert (
        "rank 4, int8: 9,000 B, 0.40 points below full labels (95 % interval 0.15 to 0.65, paired)" in words
    )
    assert "lies above 1 of them. Not above: stored, 1 in 5, vq 256. Smaller than any generator:" in words
    assert "Without residuals" not in words
    corrected = {"generator-4-int8+vq256@20": row("corrected", 9_900, 90.1, 90.2, 90.3)}
    both = load("rate_verdicts").merge({}, made_rows() | corrected, facts)
    words = picture.write_verdicts(both["verdicts"])
    assert "rank 4, int8, residuals vq256 of 20 epochs: 9,900 B, 0.00 points below" in words
    assert "Without residuals:\n\nWithin 1 %" in words and "rank 4, int8: 9,000 B, 0.40 points" in words
    page = render_report(picture.draw({"figures": figures, "environment": {}}, {"ipc": 50}))
    for name in made_rows():
        assert picture.name_row(name).split()[-1] in page


def test_a_place_is_claimed_once(load: Any, tmp_path: Path) -> None:
    settings = load("rate_settings")
    with settings.claim(tmp_path / "row"):
        with pytest.raises(settings.BusyError), settings.claim(tmp_path / "row"):
            pass
        # What goes wrong inside is no claim of another process.
        with pytest.raises(FolderConflictError), settings.claim(tmp_path / "other"):
            raise FolderConflictError("made with other settings")
    with settings.claim(tmp_path / "row"):
        pass


def test_settings_are_refused_by_name_and_the_committed_ones_are_enough(load: Any) -> None:
    settings = load("rate_settings").Settings
    with pytest.raises(ConfigError, match=r"(?s)generators.*'12-int9'.*stored-fp16"):
        from_dict(
            settings,
            {"generators": ["12-int9"], "condense": {"student": {"labels": ["teacher"]}}},
        )
    for wrong in ("12", "0-int8", "12-int8+vq256", "12-int8+vq256@0", "12-int8+pruned2@2", "12-int8+vqq@2"):
        with pytest.raises(ConfigError, match="generators: expected a rank"):
            from_dict(settings, {"generators": [wrong]})
    found = load_config(settings, BENCHMARK / "settings.yaml")
    assert len(found.generators) >= 6
    assert sum(kind.startswith("stored-") for kind in found.condense.student.labels) >= 6
    assert len(found.condense.student.seeds) >= 3


def test_rows_are_made_and_read_again(load: Any, tmp_path: Path) -> None:
    fit = {"epochs": 8, "batch_size": 4, "lr": 0.01}
    settings = config(
        projector={"target_epochs": 1, "tune_epochs": 4, "tune_target_epochs": 2, "weak_teachers": 2},
        student={"labels": ["stored-fp16"], "seeds": [0, 1], "fit": fit},
    )

    def open_bench() -> Any:
        bench = load("rate_stages").Bench(Pipeline(settings, sources(), tmp_path))
        bench.prepare()
        return bench

    bench = open_bench()
    names = (
        "stored-fp16",
        "stored-pruned4+int8",
        "generator-2-int8",
        "generator-2-int8+vq4@2",
        "one-per-image",
        "hard",
    )
    rows = {name: bench.row(name) for name in names}
    # Three classes: six images in eight epochs, two bytes a logit.
    assert rows["stored-fp16"]["bytes"] >= 6 * 8 * 3 * 2
    assert rows["stored-fp16"]["fidelity"]["agreement"] == 1.0
    assert rows["stored-fp16"]["fidelity"]["samples"] == 48
    assert rows["stored-pruned4+int8"]["fidelity"]["samples"] == 12
    assert rows["generator-2-int8"]["fidelity"]["samples"] == 48
    assert rows["generator-2-int8"]["fidelity"]["mse"] > rows["stored-fp16"]["fidelity"]["mse"]
    kinds = ["codec", "codec", "generator", "corrected", "other", "other"]
    assert [rows[name]["kind"] for name in names] == kinds
    corrected, alone = rows["generator-2-int8+vq4@2"], rows["generator-2-int8"]
    assert corrected["fidelity"]["samples"] == 12
    assert corrected["fidelity"]["mse"] < alone["fidelity"]["mse"]
    residual = tmp_path / "labels" / "generator-2-int8+vq4@2"
    size = sum(path.stat().st_size for path in residual.glob("*.safetensors"))
    assert corrected["bytes"] == alone["bytes"] + size and size > 12
    adapter = tmp_path / "labels" / "generator-2-int8" / "adapter"
    assert rows["generator-2-int8"]["bytes"] == sum(path.stat().st_size for path in adapter.iterdir())
    times = (tmp_path / "timings.json").read_text()
    again = open_bench()
    assert {name: again.row(name) for name in names} == rows
    assert (tmp_path / "timings.json").read_text() == times


def test_views_are_addressed_without_being_drawn(load: Any, tmp_path: Path) -> None:
    stages = load("rate_labels")
    data = Pipeline(config(), sources(), tmp_path).training_set
    drawn = list(stages.render_views(data, 3, "cpu", 1))
    addressed = list(stages.address_views(data, 3, 1))
    assert [batch.epoch for batch in addressed] == [1, 2]
    for ours, theirs in zip(addressed, drawn, strict=True):
        assert torch.equal(ours.partner_labels, theirs.partner_labels)
        assert torch.equal(ours.weights, theirs.weights)
        assert (ours.parameters.samples == theirs.parameters.samples).all()
