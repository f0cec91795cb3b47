"""Accuracy and fidelity against bytes on Fashion-MNIST: label generators and stored labels, three seeds.

    python benchmarks/condense-rate-distortion/run.py [--data fashion-mnist | FOLDER] [--work FOLDER]
        [--rows generator-12-int8 stored-fp16 ...] [--settings FILE] [--out FOLDER]

One teacher, 50 images per class, and labels for every view that a student of 300 epochs sees: from generators
of several ranks, each stored in several adapter codecs; and stored, by several label codecs. Every row is the
accuracy of ConvNet-3 students on the 10,000 test images after the last epoch, mean and sample standard
deviation over the seeds; the labels' agreement, KL divergence and mean squared error with the teacher on the
views that the students see; and bytes on disk, for a generator those of its adapter. Judged are the gap of
the best generator within 1 % of the bytes of full labels in fp16, and whether the generators' curve lies
above every codec below 2 %.

Writes results.json and report.html beside this file, or to --out, and ends its output with the JSON on one
line. A killed run continues where it stopped. The same command started twice shares the rows; --rows makes
some of them only. Rows of another teacher, other images or other settings in results.json are dropped. With
the --work of condense-fashion-mnist its teacher is taken.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rate_picture import draw
from rate_settings import BusyError, Settings, claim
from rate_stages import Bench
from rate_verdicts import FULL, merge

from aerogel.condense import CondenseConfig, Pipeline, Sources
from aerogel.core.allocation import keep_memory
from aerogel.core.canonical import canonical_sha256
from aerogel.core.config import load_config, to_dict
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.report import write_report
from aerogel.zoo import load_splits

HERE = Path(__file__).parent
WAIT_S = 5.0
T = TypeVar("T")


def wait(make: Callable[[], T]) -> T:
    """Return what ``make`` makes, once no other process is at it."""
    while True:
        try:
            return make()
        except BusyError:
            time.sleep(WAIT_S)


def make_rows(bench: Bench, names: Sequence[str], note: Callable[[str, dict[str, Any]], None]) -> None:
    """Make rows and ``note`` each; one that another process is making is read when that is done."""
    pending = list(names)
    while pending:
        postponed = []
        for name in pending:
            try:
                row = bench.row(name)
            except BusyError:
                postponed.append(name)
                continue
            note(name, row)
            spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
            print(f"{name:26s} {row['mean']:6.2f}{spread} {row['bytes']:>10,} B", flush=True)
        if len(postponed) == len(pending):
            time.sleep(WAIT_S)
        pending = postponed


def describe(bench: Bench) -> dict[str, Any]:
    """Return what the figures are of; rows of other ``made_from`` are not comparable."""
    config = bench.config
    student = replace(config.student, labels=(FULL,))
    imported = replace(config.teacher, path=None)
    settings = to_dict(replace(config, student=student, teacher=imported))
    return {
        "made_from": {**bench.shared, "settings": canonical_sha256(settings, "settings")},
        "teacher_test_accuracy": bench.pipeline.manifest("teacher").facts["test_accuracy"]["value"],
        "rate": bench.rate,
        "epochs": bench.epochs,
        "images": len(bench.data),
        "backbone_bytes": bench.pipeline.backbone.size_bytes,
    }


def write_results(path: Path, rows: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``rows`` into the results at ``path`` and return them; processes take turns."""
    with claim(path):
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"figures": {}}
        results = {"figures": merge(known["figures"], rows, facts), "environment": environment()}
        write_text_atomic(path, json.dumps(results, indent=2, sort_keys=True) + "\n")
    return results


def open_bench(config: CondenseConfig, data: str, work: Path) -> Bench:
    """Return the bench in ``work``, with the teacher in the folder there that benchmarks share."""
    sources = Sources(*load_splits(data))
    shared = work / "teacher-run"

    def train() -> None:
        with claim(work / "teacher-made"):
            Pipeline(config, sources, shared).manifest("teacher")

    wait(train)
    config = replace(config, teacher=replace(config.teacher, path=str(shared / "teacher")))
    bench = Bench(Pipeline(config, sources, work / "rate-distortion"))
    wait(bench.prepare)
    return bench


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", help="named source or folder with the IDX files; by default the settings'")
    parser.add_argument("--work", type=Path, default=Path("runs/condense-rate-distortion"))
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="by default all")
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and report.html")
    arguments = parser.parse_args()
    settings = load_config(Settings, arguments.settings)
    names = arguments.rows or settings.rows
    unknown = sorted(set(names) - set(settings.rows))
    if unknown:
        parser.error(f"expected rows of {', '.join(settings.rows)}; got {', '.join(unknown)}")
    # Networks of several widths and batches of several sizes pass through one process.
    torch._dynamo.config.recompile_limit = 64
    bench = open_bench(settings.condense, arguments.data or settings.condense.dataset, arguments.work)
    facts, path = describe(bench), arguments.out / "results.json"
    made: dict[str, Any] = {}

    def note(name: str, row: dict[str, Any]) -> None:
        made[name] = row
        wait(lambda: write_results(path, made, facts))

    make_rows(bench, names, note)
    results = wait(lambda: write_results(path, made, facts))
    write_report(draw(results, to_dict(settings)), arguments.out / "report.html")
    print(json.dumps(results, sort_keys=True))


if __name__ == "__main__":
    main()
