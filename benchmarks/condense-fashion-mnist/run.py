"""Accuracy against bytes on Fashion-MNIST: every kind of labels, 10 and 50 images per class, three seeds.

    python benchmarks/condense-fashion-mnist/run.py [--data fashion-mnist | FOLDER] [--work FOLDER] [--ipc 10]

Trains one teacher, then for each number of images per class: selects images, trains the label generator, and
trains ConvNet-3 (width 128) students on each kind of labels. Figures are accuracies on the 10,000 test images
after the last epoch, mean and sample standard deviation over the seeds; settings are in ipc10.yaml and
ipc50.yaml and were chosen on held-out training images. Writes results.json beside this file and ends its
output with that JSON on one line. A killed run continues where it stopped. --rows trains the students of some
kinds of labels only: processes may so share the work, or a changed kind be measured alone. The other rows of
results.json stay as they are if they are of the same teacher and images, and are dropped otherwise.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aerogel.condense import Comparison, CondenseConfig, Pipeline, Row, Sources
from aerogel.core.config import load_config
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.zoo import load_splits

HERE = Path(__file__).parent
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


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", default="fashion-mnist", help="named source or folder with the IDX files")
    parser.add_argument("--work", type=Path, default=Path("runs/condense-fashion-mnist"))
    parser.add_argument("--ipc", type=int, action="append", choices=(10, 50))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    sources = Sources(*load_splits(arguments.data))
    results = HERE / "results.json"
    found: dict[str, Any] = {}
    for ipc in arguments.ipc or (10, 50):
        config = load_config(CondenseConfig, HERE / f"ipc{ipc}.yaml")
        shared = arguments.work / "teacher-run"
        Pipeline(config, sources, shared).manifest("teacher")
        config = replace(config, teacher=replace(config.teacher, path=str(shared / "teacher")))
        pipeline = Pipeline(config, sources, arguments.work / f"ipc{ipc}")
        figures = train_rows(pipeline, arguments.rows)
        facts = describe(pipeline, generator="generator" in arguments.rows)
        figures = {**figures, **facts, "bytes": {**figures["bytes"], **facts.get("bytes", {})}}
        found = json.loads(results.read_text()) if results.exists() else {"figures": {}}
        found["figures"][f"ipc{ipc}"] = merge(found["figures"].get(f"ipc{ipc}", {}), figures)
        found["environment"] = environment()
        write_text_atomic(results, json.dumps(found, indent=2, sort_keys=True) + "\n")
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
