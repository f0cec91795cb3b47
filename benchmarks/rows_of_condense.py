"""Train the students of a comparison row by row, and keep the figures in the results of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aerogel.condense import Comparison, Pipeline, Row
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic

# Kinds of labels and of images, by the names that the rows have in the results.
ROWS = {
    "hard": ("hard", "chosen"),
    "one_per_image": ("one-per-image", "chosen"),
    "full_labels": ("stored-fp16", "chosen"),
    "generator": ("generator", "chosen"),
    "teacher": ("teacher", "chosen"),
    "random_real_full_labels": ("stored-fp16", "random"),
}


def train_rows(pipeline: Pipeline, names: list[str]) -> dict[str, Any]:
    """Train the students of some rows; return their figures and what each kind of labels takes in bytes."""
    config, comparison = pipeline.config, Comparison(pipeline)
    figures: dict[str, Any] = {"bytes": {}, "epochs": config.student.fit.epochs}
    for name in names:
        row: Row = comparison.row(*ROWS[name])
        accuracy = row.accuracy
        figures[name] = {"mean": accuracy.value, "std": accuracy.spread, "seeds": accuracy.samples}
        figures["bytes"][name] = row.label_bytes
        print(f"ipc {config.ipc}: {name:24s} {row.accuracy} {row.label_bytes:>10,} B", flush=True)
    return figures


def describe(pipeline: Pipeline, *, generator: bool) -> dict[str, Any]:
    """Return what the figures are of; with ``generator`` also how true it is and what the set weighs."""
    facts = pipeline.manifest("teacher").facts
    found = {
        "teacher_test_accuracy": facts["test_accuracy"]["value"],
        "made_from": {name: pipeline.digest(name) for name in ("teacher", "selection")},
    }
    if generator:
        facts = pipeline.archive.manifest.facts
        storage = {row["name"]: row["bytes"] for row in facts["storage"]}
        found["fidelity"] = facts["projector"]["fidelity"]
        found["bytes"] = {
            "images": storage["images"],
            "generator_and_backbone": storage["label generator and backbone"],
        }
    return found


def merge(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures ``found``, with those ``known`` of other rows from the same teacher and images."""
    if known.get("made_from") != found["made_from"] or known.get("epochs") != found["epochs"]:
        return found
    return {**known, **found, "bytes": {**known["bytes"], **found["bytes"]}}


def record(pipeline: Pipeline, names: list[str], results: Path) -> dict[str, Any]:
    """Train the students of some rows and write their figures to ``results``, whose whole content it returns.

    Rows of the file that are not named stay if they are of the same teacher, images and epochs.
    """
    figures = train_rows(pipeline, names)
    facts = describe(pipeline, generator="generator" in names)
    figures = {**figures, **facts, "bytes": {**figures["bytes"], **facts.get("bytes", {})}}
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"figures": {}}
    setting = f"ipc{pipeline.config.ipc}"
    found["figures"][setting] = merge(found["figures"].get(setting, {}), figures)
    found["environment"] = environment()
    write_text_atomic(results, json.dumps(found, indent=2, sort_keys=True) + "\n")
    return found
