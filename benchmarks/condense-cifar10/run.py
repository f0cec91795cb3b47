"""Accuracy against bytes on CIFAR-10 (JPEG): kinds of labels, 1 and 10 images per class, three seeds.

    AEROGEL_DATA=FOLDER python benchmarks/condense-cifar10/run.py [--work FOLDER] [--ipc 10] [--rows hard]

FOLDER holds cifar10/{train,test}-*.parquet, copies of CIFAR-10 in lossy JPEG, and
models/cifar10-resnet56.safetensors, the published ResNet-56. That is the teacher: it gets 93.6 % of the true
CIFAR-10 right and 83.2 % of these copies, so that these figures compare with one another, and with
published ones only in their order. Images are chosen as RDED chooses them (arXiv 2312.03526): the crops the
teacher is surest of, of five each of 300 images. The row "teacher" is RDED's protocol, the teacher asked at
every step. Students are ResNet-18 of the published width; accuracy is that on the 10,000 test copies after
the last epoch, mean and sample standard deviation over the seeds. Writes results.json beside this file and
ends its output with that JSON on one line. A killed run continues where it stopped; --rows as in
condense-fashion-mnist. --try runs all of it in a minute or two on few images, for two epochs, and writes
its results to --work; its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aerogel.condense import CondenseConfig, Pipeline, Sources
from aerogel.core.allocation import keep_memory
from aerogel.core.config import load_config
from aerogel.zoo import load_splits
from aerogel.zoo.imageset import ImageSet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from rows_of_condense import ROWS, record  # noqa: E402 - beside this folder, which is no package

SETTINGS = (1, 10)
USUAL = [name for name in ROWS if name != "one_per_image"]
TEACHER = Path("models") / "cifar10-resnet56.safetensors"
# Of other teachers, on true CIFAR-10, with ResNet-18 students: DELT's table (arXiv 2411.19946).
PUBLISHED = {
    "SRe2L": {1: 16.6, 10: 29.3, 50: 45.0},
    "RDED": {1: 22.9, 10: 37.1, 50: 62.1},
    "DELT": {1: 24.0, 10: 43.0, 50: 64.9},
}


def find_data() -> Path:
    """Return the folder with the images and the teacher, or stop with how to name it."""
    named = os.environ.get("AEROGEL_DATA")
    folder = Path(named or ".")
    missing = [path for path in (Path("cifar10"), TEACHER) if not (folder / path).exists()]
    if named is None or missing:
        sys.exit(f"set AEROGEL_DATA to the folder that holds cifar10 and {TEACHER}; got {named!r}")
    return folder


def spread(data: ImageSet, per_class: int) -> ImageSet:
    """Return the first ``per_class`` images of every class."""
    return data.subset(torch.cat([rows[:per_class] for rows in data.per_class().values()]))


def shorten(config: CondenseConfig) -> CondenseConfig:
    """Return settings under which everything happens and little of it."""
    student, projector = config.student, config.projector
    return replace(
        config,
        selection=replace(config.selection, candidates=50),
        projector=replace(
            projector,
            target_epochs=2,
            tune_epochs=20,
            tune_target_epochs=2,
            fit=replace(projector.fit, epochs=12, batch_size=64),
        ),
        student=replace(student, seeds=(0, 1), width=8, fit=replace(student.fit, epochs=2)),
    )


def print_published(ipc: int) -> None:
    """Print what others report, and why it is no like for like."""
    shown = ", ".join(f"{name} {figures[ipc]}" for name, figures in PUBLISHED.items())
    print(
        f"ipc {ipc}: published, true CIFAR-10, ResNet-18 teachers: {shown}. The copies here are lossy and "
        "the teacher is another: only rows of these copies compare."
    )


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--work", type=Path, default=Path("runs/condense-cifar10"))
    parser.add_argument("--ipc", type=int, action="append", choices=SETTINGS)
    parser.add_argument("--rows", nargs="+", default=USUAL, choices=list(ROWS))
    parser.add_argument("--try", action="store_true", dest="brief", help="few images and epochs")
    arguments = parser.parse_args()
    folder = find_data()
    sources = Sources(*load_splits(folder / "cifar10"))
    results = (arguments.work if arguments.brief else HERE) / "results.json"
    if arguments.brief:
        sources = Sources(spread(sources.train, 200), spread(sources.test, 10))
    found: dict[str, Any] = {}
    for ipc in arguments.ipc or SETTINGS:
        config = load_config(CondenseConfig, HERE / f"ipc{ipc}.yaml")
        config = replace(config, teacher=replace(config.teacher, path=str(folder / TEACHER)))
        config = shorten(config) if arguments.brief else config
        pipeline = Pipeline(config, sources, arguments.work / f"ipc{ipc}")
        found = record(pipeline, arguments.rows, results)
        print_published(ipc)
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
