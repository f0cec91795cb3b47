"""Accuracy against bytes on Fashion-MNIST: every kind of labels, 1, 10 and 50 images per class, three seeds.

    python benchmarks/condense-fashion-mnist/run.py [--data fashion-mnist | FOLDER] [--work FOLDER] [--ipc 10]

Trains one teacher, then for each number of images per class: selects images, trains the label generator, and
trains ConvNet-3 (width 128) students on each kind of labels. Figures are accuracies on the 10,000 test images
after the last epoch, mean and sample standard deviation over the seeds; settings are in ipc1.yaml, ipc10.yaml
and ipc50.yaml and were chosen on held-out training images. Writes results.json beside this file and ends its
output with that JSON on one line. A killed run continues where it stopped. --rows trains the students of some
kinds of labels only: processes may so share the work, or a changed kind be measured alone. The other rows of
results.json stay as they are if they are of the same teacher and images, and are dropped otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from aerogel.condense import CondenseConfig, Pipeline, Sources
from aerogel.core.allocation import keep_memory
from aerogel.core.config import load_config
from aerogel.zoo import load_splits

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from rows_of_condense import ROWS, record  # noqa: E402 - beside this folder, which is no package

SETTINGS = (1, 10, 50)


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", default="fashion-mnist", help="named source or folder with the IDX files")
    parser.add_argument("--work", type=Path, default=Path("runs/condense-fashion-mnist"))
    parser.add_argument("--ipc", type=int, action="append", choices=SETTINGS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    sources = Sources(*load_splits(arguments.data))
    found: dict[str, Any] = {}
    for ipc in arguments.ipc or SETTINGS:
        config = load_config(CondenseConfig, HERE / f"ipc{ipc}.yaml")
        shared = arguments.work / "teacher-run"
        Pipeline(config, sources, shared).manifest("teacher")
        config = replace(config, teacher=replace(config.teacher, path=str(shared / "teacher")))
        pipeline = Pipeline(config, sources, arguments.work / f"ipc{ipc}")
        found = record(pipeline, arguments.rows, HERE / "results.json")
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
