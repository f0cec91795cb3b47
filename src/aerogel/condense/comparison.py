"""Train students on one condensed set with labels of every kind, and weigh the labels in bytes on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aerogel.condense.archive import delta_bytes
from aerogel.condense.config import SelectionConfig
from aerogel.condense.fit import EpochState, fused
from aerogel.condense.labels import (
    HardLabels,
    LabelSource,
    NetworkLabels,
    OnePerImage,
    StoredLabels,
    save_hard,
    save_one_per_image,
    store_labels,
    stored_epochs,
)
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.run_folder import TEACHER_WEIGHED
from aerogel.condense.student import (
    TrainingSet,
    build_student,
    choose_rate,
    score,
    train_student,
    training_batches,
)
from aerogel.condense.teacher import save_weights
from aerogel.condense.views import Views
from aerogel.core.canonical import show_value
from aerogel.core.config import to_dict
from aerogel.core.progress import track
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import DataError, compose
from aerogel.measure import Measurement, mean_std, size_bytes

ONE_PER_IMAGE = "one-per-image.safetensors"
HARD = "hard.safetensors"


@dataclass(frozen=True)
class Row:
    """Tell what one kind of labels weighs and how good its students are.

    ``accuracy`` is the students' accuracy on the test images after the last epoch, mean and standard
    deviation over seeds in percent; ``label_bytes`` what stands on disk for the labels, ``backbone_bytes``
    what they need besides and is public. ``images`` says how the images were picked.
    """

    labels: str
    images: str
    accuracy: Measurement
    label_bytes: int
    backbone_bytes: int
    rate: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**vars(self), "accuracy": self.accuracy.to_dict()}


def read_row(data: Mapping[str, Any]) -> Row:
    """Read what :meth:`Row.to_dict` returned.

    Raises:
        DataError: it is something else.
    """
    try:
        row = Row(**{**data, "accuracy": Measurement.from_dict(data["accuracy"])})
    except (TypeError, KeyError) as failure:
        raise DataError(
            compose("a row of a comparison", repr(failure), "give its command again")
        ) from failure
    counts = (row.label_bytes, row.backbone_bytes)
    texts = isinstance(row.labels, str) and isinstance(row.images, str)
    if not texts or type(row.rate) is not float or not all(type(n) is int and n >= 0 for n in counts):
        got = show_value(dict(data))
        raise DataError(compose("names, bytes and a rate in a row", got, "give its command again"))
    return row


class Comparison:
    """Train and score students beside the stages of ``pipeline``, in resumable folders of their own."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config

    def rows(self) -> list[Row]:
        """Return one row per kind of labels on the chosen images, then the baseline of random real images."""
        found = [self.row(kind, "chosen") for kind in self.config.student.labels]
        if self.config.student.random_baseline:
            found.append(self.row("stored-fp16", "random"))
        return found

    def row(self, kind: str, images: str) -> Row:
        """Train the students of one kind of labels over all seeds.

        ``images`` is "chosen" for the condensed set, or "random" for real images picked by chance, another
        draw for every seed.
        """
        seeds = self.config.student.seeds
        rate = self.rate(kind)
        values = [self.student(kind, images, seed, rate) for seed in seeds]
        accuracy = (
            values[0] if len(values) == 1 else mean_std([v.value for v in values], name="accuracy", unit="%")
        )
        backbone = self.pipeline.backbone.size_bytes if kind == "generator" else 0
        return Row(kind, images, accuracy, self.label_bytes(kind), backbone, rate)

    def data(self, images: str, seed: int) -> TrainingSet:
        """Return what the students of ``seed`` see."""
        own = self.pipeline.training_set
        if images == "chosen":
            return own
        plain = SelectionConfig(order="random", crops=1, tiles=1, candidates=0)
        name = f"random-{seed}"
        picked = self.pipeline.select(name, plain, derive_seed(self.config.seed, "random", seed))
        views = Views(own.views.config, own.views.seed, len(picked.labels))
        return replace(own, images=picked.images, labels=picked.labels, views=views)

    def rate(self, kind: str) -> float:
        """Choose the learning rate for one kind of labels, once, on held-out training images."""
        config = self.config.student
        if len(config.rates) == 1:
            return config.rates[0]
        name = f"rates/{kind}"
        data = self.data("chosen", 0)

        def build(work: Path) -> Mapping[str, Any]:
            def watch(label: str, run: Iterator[EpochState]) -> Iterator[EpochState]:
                return track(run, total=config.fit.epochs, label=f"{kind}, {label}", unit="epoch")

            source = self.online(kind)
            best, found = choose_rate(
                data,
                source,
                config,
                self.pipeline.held_out,
                seed=self.config.seed,
                device=self.pipeline.device,
                watch=watch,
            )
            return {"rate": best, "held_out_accuracy": found}

        settings = {"student": to_dict(config), "labels": kind, "views": to_dict(self.config.views)}
        inputs = self._inputs(kind, "chosen", 0)
        return float(self.pipeline.run(name, "learning-rate", settings, inputs, build).facts["rate"])

    def online(self, kind: str) -> LabelSource:
        """Return the source for ``kind`` without a store: stored kinds are the teacher online."""
        fit = self.config.student.fit
        if kind == "generator":
            return NetworkLabels(kind, fused(self.pipeline.archive.generator.to(self.pipeline.device), fit))
        if kind in ("teacher", "stored-fp32", "stored-fp16"):
            return NetworkLabels(
                "teacher", fused(self.pipeline.teacher.classifier.to(self.pipeline.device).eval(), fit)
            )
        return self.source(kind, self.data("chosen", 0), "chosen", 0)

    def source(self, kind: str, data: TrainingSet, images: str, seed: int) -> LabelSource:
        """Return the labels of ``kind`` for ``data``, writing what has to be stored first."""
        if kind in ("generator", "teacher"):
            return self.online(kind)
        if kind == "hard":
            self.small_store(images, seed, data)
            return HardLabels()
        if kind == "one-per-image":
            shape = (len(data), len(data.class_names))
            return OnePerImage(self.small_store(images, seed, data) / ONE_PER_IMAGE, shape)
        shape = (len(data), len(data.class_names))
        return StoredLabels(self.full_store(kind, images, seed, data), kind, shape)

    def small_store(self, images: str, seed: int, data: TrainingSet) -> Path:
        """Write the hard labels and one soft label per image; return their folder."""
        name = "labels/small" if images == "chosen" else f"labels/small-{images}-{seed}"

        def build(work: Path) -> Mapping[str, Any]:
            save_hard(work / HARD, data.labels)
            teacher = self.pipeline.teacher.classifier.to(self.pipeline.device)
            save_one_per_image(
                work / ONE_PER_IMAGE, teacher, data.images.to(self.pipeline.device), torch.float16
            )
            return {}

        self.pipeline.run(
            name, "labels", {"labels": "small"}, self._inputs("one-per-image", images, seed), build
        )
        return self.pipeline.out / name

    def full_store(self, kind: str, images: str, seed: int, data: TrainingSet) -> Path:
        """Write the teacher's labels of every view of every epoch; return their folder.

        They are computed in the batches of the first seed's student; views do not depend on the student.
        """
        name = f"labels/{kind}" if images == "chosen" else f"labels/{kind}-{images}-{seed}"
        config = self.config.student
        order = config.seeds[0] if images == "chosen" else seed

        def build(work: Path) -> Mapping[str, Any]:
            done = stored_epochs(work)
            batches = training_batches(
                data, config.fit, seed=order, device=self.pipeline.device, first_epoch=done
            )
            total = (config.fit.epochs - done) * -(-len(data) // config.fit.batch_size)
            store_labels(
                work,
                self.online("teacher"),
                iter(track(batches, total=total, label=f"storing labels ({kind})", unit="batch")),
                epochs=config.fit.epochs,
                images=len(data),
                classes=len(data.class_names),
                dtype=torch.float32 if kind == "stored-fp32" else torch.float16,
            )
            return {"epochs": config.fit.epochs}

        settings = {
            "labels": kind,
            "epochs": config.fit.epochs,
            "batch_size": config.fit.batch_size,
            "order": order,
            "views": to_dict(self.config.views),
        }
        self.pipeline.run(name, "labels", settings, self._inputs(kind, images, seed), build)
        return self.pipeline.out / name

    def label_bytes(self, kind: str) -> int:
        """Return what the labels of ``kind`` take on disk, by stat of the files they are."""
        out = self.pipeline.out
        data = self.data("chosen", 0)
        if kind == "generator":
            return delta_bytes(out / "archive")
        if kind == "teacher":
            path = out / TEACHER_WEIGHED
            save_weights(self.pipeline.teacher.classifier, path, torch.float16)
            return path.stat().st_size
        if kind in ("hard", "one-per-image"):
            folder = self.small_store("chosen", 0, data)
            return (folder / (HARD if kind == "hard" else ONE_PER_IMAGE)).stat().st_size
        folder = self.full_store(kind, "chosen", 0, data)
        return sum(size_bytes(path) for path in folder.glob("store-*.safetensors"))

    def student(self, kind: str, images: str, seed: int, rate: float) -> Measurement:
        """Train and score one student, or read what an earlier run of it found."""
        name = f"students/{kind}-{images}-{seed}"
        config = replace(self.config.student, fit=replace(self.config.student.fit, lr=rate))
        data = self.data(images, seed)

        def build(work: Path) -> Mapping[str, Any]:
            student = build_student(data, config, seed)
            run: Iterator[EpochState] = train_student(
                student,
                data,
                self.source(kind, data, images, seed),
                config,
                seed=seed,
                device=self.pipeline.device,
                checkpoint=work / CHECKPOINT_NAME,
            )
            self.pipeline.watch(name, run, config.fit.epochs)
            save_weights(student, work / "student.safetensors")
            forward = fused(student.eval(), config.fit)
            accuracy = score(forward, self.pipeline.sources.test, self.pipeline.device)
            return {"accuracy": accuracy.to_dict(), "epochs": config.fit.epochs}

        fit = to_dict(config.fit)
        shape = {
            "network": config.network,
            "width": config.width,
            "depth": config.depth,
            "ce_weight": config.ce_weight,
        }
        views = to_dict(self.config.views)
        settings = {**shape, "fit": fit, "labels": kind, "images": images, "seed": seed, "views": views}
        facts = self.pipeline.run(name, "student", settings, self._inputs(kind, images, seed), build).facts
        return Measurement.from_dict(facts["accuracy"])

    def _inputs(self, kind: str, images: str, seed: int) -> dict[str, str]:
        """Return the digests of the stages that labels of ``kind`` depend on, so that no other voids them."""
        labels_stage = "archive" if kind == "generator" else "teacher"
        images_stage = "selection" if images == "chosen" else f"random-{seed}"
        return {name: self.pipeline.digest(name) for name in (labels_stage, images_stage)}
