"""What labels cost a student per training step: made online, read from a store, or kept in memory.

    python benchmarks/condense-throughput/run.py [--repeats 40] [--no-results]

A ConvNet-3 of width 128 is trained at batch 100 on 100 images of Fashion-MNIST's shape, random ones, for time
does not see what they show. Its labels come from nowhere (hard), from stores on disk by several codecs, from
a teacher of its own kind, from a label generator (aerogel/shapes-resnet8, rank 8), alone or with residuals
from a codebook, and from teacher or generator behind a cache that holds all of their labels. Runs go round
the views of two epochs. They take turns, one step each, in one process of one thread, so that all see the
same machine; the first round over the views fills the caches and is not counted. Figures are ratios to the
step with labels stored in float16, taken within each turn, and the share of a step that its labels take:
median, smallest and largest. Stores are read through the operating system's file cache. Writes results.json
beside this file, unless told not to, and ends its output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from aerogel.condense import CachedLabels, HardLabels, LabelSource, NetworkLabels, StoredLabels, Views
from aerogel.condense.codecs.shards import store_bytes
from aerogel.condense.config import FitConfig, ProjectorConfig, StudentConfig, ViewConfig
from aerogel.condense.families import load_backbone
from aerogel.condense.fit import EpochState
from aerogel.condense.labels import Batch, CorrectedLabels, ResidualLabels
from aerogel.condense.networks import build_classifier
from aerogel.condense.projector import adapt, build_projector
from aerogel.condense.storing import store_labels
from aerogel.condense.student import TrainingSet, build_student, train_student, training_batches
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic

HERE = Path(__file__).parent
CLASSES = tuple("abcdefghij")
IMAGES = BATCH = 100  # an epoch is one step
SIZE, VIEW_EPOCHS = 28, 2
CODECS = ("stored-fp32", "stored-fp16", "stored-int8", "stored-top5", "stored-vq256")
RESIDUAL, RESIDUAL_CODEC = "residual", "stored-vq256"
REFERENCE = "stored_fp16"


@dataclass
class Timed:
    """Add up the seconds that a source takes."""

    source: LabelSource
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self.source.name

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the source's labels."""
        begun = time.perf_counter()
        found = self.source.logits(batch)
        self.seconds += time.perf_counter() - begun
        return found


@dataclass
class Lane:
    """Hold one student in training and what its steps took."""

    labels: Timed
    run: Iterator[EpochState]
    step_ms: list[float] = field(default_factory=list)
    label_ms: list[float] = field(default_factory=list)

    def advance(self) -> None:
        """Train one step and note its time, and that of its labels alone."""
        before = self.labels.seconds
        state = next(self.run)
        self.step_ms.append(1000.0 * state.seconds)
        self.label_ms.append(1000.0 * (self.labels.seconds - before))


def draw_images() -> TrainingSet:
    """Return random images with labels in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(IMAGES) % len(CLASSES)
    return TrainingSet(images, labels, Views(ViewConfig(), 0, IMAGES), CLASSES, (0.5,), (0.3,))


def build_teacher() -> NetworkLabels:
    """Return a ConvNet-3 of width 128 with random weights."""
    shape: dict[str, Any] = {"channels": 1, "classes": len(CLASSES), "size": SIZE, "width": 128, "depth": 3}
    return NetworkLabels(
        "teacher", build_classifier("convnet", **shape, mean=(0.5,), std=(0.3,), seed=1).eval()
    )


def build_generator(data: TrainingSet) -> NetworkLabels:
    """Return the label generator on the shipped backbone, untrained, merged as one that is loaded."""
    config = ProjectorConfig()
    backbone = load_backbone(config.backbone, None, size=SIZE)
    plain = build_projector(backbone, data.images, data.labels, CLASSES, config.templates)
    adapted: Any = adapt(plain, backbone, config, len(CLASSES), seed=2)
    return NetworkLabels("generator", adapted.float().eval().merge_and_unload().requires_grad_(False))


def gather_sources(data: TrainingSet, fit: FitConfig, folder: Path) -> dict[str, LabelSource]:
    """Return every kind of labels by name; stored ones are written to ``folder`` first."""
    teacher, generator = build_teacher(), build_generator(data)
    kept = CachedLabels(teacher, images=IMAGES, budget_bytes=2**20)
    sources: dict[str, LabelSource] = {"hard": HardLabels()}
    sizes: dict[str, Any] = {"epochs": VIEW_EPOCHS, "images": IMAGES, "classes": len(CLASSES)}
    for codec in CODECS:
        (folder / codec).mkdir()
        # The cache spares all stores but the first the teacher's forward passes.
        store_labels(folder / codec, kept, training_batches(data, fit, seed=0), codec=codec, **sizes)
        sources[codec.replace("-", "_")] = StoredLabels(folder / codec, codec, codec=codec)
    for online in (generator, teacher):
        sources[online.name] = online
        sources[f"{online.name}_cached"] = CachedLabels(online, images=IMAGES, budget_bytes=2**20)
    left = ResidualLabels(kept, generator)
    (folder / RESIDUAL).mkdir()
    store_labels(folder / RESIDUAL, left, training_batches(data, fit, seed=0), codec=RESIDUAL_CODEC, **sizes)
    stored = StoredLabels(folder / RESIDUAL, RESIDUAL, codec=RESIDUAL_CODEC)
    sources["generator_with_residuals"] = CorrectedLabels(generator, stored)
    return sources


def measure(repeats: int, folder: Path) -> dict[str, Any]:
    """Train students on every kind of labels in turn; return what a step took with each."""
    data = draw_images()
    fit = FitConfig(epochs=VIEW_EPOCHS + repeats, batch_size=BATCH, dtype="float32")
    config = StudentConfig(width=128, fit=fit)
    lanes: dict[str, Lane] = {}
    for name, source in gather_sources(data, fit, folder).items():
        timed = Timed(source)
        student = build_student(data, config, 0)
        run = train_student(student, data, timed, config, seed=0, view_epochs=VIEW_EPOCHS)
        lanes[name] = Lane(timed, run)
    for _ in range(VIEW_EPOCHS + repeats):
        for lane in lanes.values():
            lane.advance()
    figures: dict[str, Any] = {name: summarise(lane, lanes[REFERENCE]) for name, lane in lanes.items()}
    for codec in CODECS:
        figures[codec.replace("-", "_")]["bytes"] = store_bytes(folder / codec)
    for name, lane in lanes.items():
        if isinstance(lane.labels.source, CachedLabels):
            figures[name]["bytes"] = lane.labels.source.size_bytes
    return figures


def summarise(lane: Lane, reference: Lane) -> dict[str, Any]:
    """Return a lane's ratios to the reference within each turn, after the views were seen once."""
    steps, labels = lane.step_ms[VIEW_EPOCHS:], lane.label_ms[VIEW_EPOCHS:]
    others = reference.step_ms[VIEW_EPOCHS:]
    return {
        "step_ratio": spread([ours / theirs for ours, theirs in zip(steps, others, strict=True)]),
        "label_share": spread([alone / whole for alone, whole in zip(labels, steps, strict=True)]),
        "step_ms": round(median(steps), 3),
        "label_ms": round(median(labels), 4),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest of some ratios."""
    return {"median": round(median(values), 6), "low": round(min(values), 6), "high": round(max(values), 6)}


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--no-results", action="store_true", help="print the figures and write no file")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats: at least 1")
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        figures = measure(arguments.repeats, Path(folder))
    for name, each in figures.items():
        ratio, share = each["step_ratio"], each["label_share"]["median"]
        print(
            f"{name:24s} step {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}) of "
            f"{REFERENCE}, labels {share:.1%} of it, {each['label_ms']:.3f} ms"
        )
    run = {"images": IMAGES, "batch": BATCH, "size": SIZE, "repeats": arguments.repeats, "threads": 1}
    found = {"figures": figures, "run": run, "environment": environment()}
    if not arguments.no_results:
        write_text_atomic(HERE / "results.json", json.dumps(found, indent=2, sort_keys=True) + "\n")
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
