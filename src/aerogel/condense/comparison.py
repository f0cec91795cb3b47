"""Train students on one condensed set with labels of every kind, and weigh the labels in bytes on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from aerogel.condense.archive import delta_bytes
from aerogel.condense.codecs.naming import PREFIX, parse_codec
from aerogel.condense.codecs.shards import store_bytes, stored_epochs
from aerogel.condense.config import SelectionConfig
from aerogel.condense.fit import EpochState, fused
from aerogel.condense.identity import identify
from aerogel.condense.labels import HardLabels, LabelSource, NetworkLabels, OnePerImage, StoredLabels
from aerogel.condense.lineup import (
    ALL,
    AUGMENTED,
    PLAIN,
    PLAIN_VIEWS,
    configure_network,
    plan_rows,
    spell_student,
)
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.run_folder import TEACHER_WEIGHED
from aerogel.condense.storing import save_hard, save_one_per_image, store_labels
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
from aerogel.measure import Measurement, mean_std

ONE_PER_IMAGE = "one-per-image.safetensors"
HARD = "hard.safetensors"
_LONGEST = 300


@dataclass(frozen=True)
class Row:
    """Tell what one kind of labels weighs and how good its students are.

    ``accuracy`` is the students' accuracy on the test images after the last epoch, mean and standard
    deviation over seeds in percent; ``label_bytes`` what stands on disk for the labels, ``backbone_bytes``
    what they need besides and is public. ``images`` says how the images were picked, ``network`` what was
    trained, ``views`` whether they were augmented; ``values`` are the accuracies by seed.
    """

    labels: str
    images: str
    accuracy: Measurement
    label_bytes: int
    backbone_bytes: int
    rate: float
    network: str = ""
    views: str = AUGMENTED
    values: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**vars(self), "accuracy": self.accuracy.to_dict(), "values": list(self.values)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """Build a row from what :meth:`to_dict` returned, in this release or an earlier one.

        Raises:
            DataError: it is something else.
        """
        try:
            values = tuple(data.get("values", ()))
            row = cls(**{**data, "accuracy": Measurement.from_dict(data["accuracy"]), "values": values})
        except (TypeError, KeyError, AttributeError) as failure:
            got = repr(failure)[:_LONGEST]
            raise DataError(compose("a row of a comparison", got, "give its command again")) from failure
        texts = (row.labels, row.images, row.network, row.views)
        counts = (row.label_bytes, row.backbone_bytes)
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(type(count) is int and count >= 0 for count in counts)
            or not all(type(number) is float and isfinite(number) for number in (row.rate, *values))
        ):
            got = show_value(dict(data))
            raise DataError(compose("names, bytes and a rate in a row", got, "give its command again"))
        return row


class Comparison:
    """Train and score students beside the stages of ``pipeline``, in resumable folders of their own."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config

    def rows(self) -> list[Row]:
        """Return the rows of :func:`~aerogel.condense.lineup.plan_rows`, training what is not trained yet."""
        planned = plan_rows(self.config.student)
        return [self.row(each.labels, each.images, each.network, each.views) for each in planned]

    def row(self, kind: str, images: str, network: str | None = None, views: str = AUGMENTED) -> Row:
        """Train the students of one kind of labels over all seeds.

        ``images`` is "chosen" for the condensed set, "random" for real images picked by chance, another draw
        for every seed, or "all" for every real image, with hard labels and the teacher's ``fit``.
        """
        seeds = self.config.student.seeds
        network = network or self.config.student.network
        rate = self.config.teacher.fit.lr if images == ALL else self.rate(kind, network)
        values = [self.student(kind, images, seed, rate, network, views) for seed in seeds]
        accuracy = (
            values[0] if len(values) == 1 else mean_std([v.value for v in values], name="accuracy", unit="%")
        )
        backbone = self.pipeline.backbone.size_bytes if kind == "generator" else 0
        weight = self.label_bytes(kind)
        if images == ALL:
            weight = (self.pipeline.out / self.name(kind, images, seeds[0]) / HARD).stat().st_size
        each = tuple(value.value for value in values)
        return Row(kind, images, accuracy, weight, backbone, rate, network, views, each)

    def data(self, images: str, seed: int, views: str = AUGMENTED) -> TrainingSet:
        """Return what the students of ``seed`` see."""
        own = self.pipeline.training_set
        if views == PLAIN:
            shown = self.data(images, seed)
            return replace(shown, views=Views(PLAIN_VIEWS, shown.views.seed, len(shown)))
        if images == "chosen":
            return own
        if images == ALL:
            train = self.pipeline.train
            every = Views(self.config.teacher.views, derive_seed(self.config.seed, "all/views"), len(train))
            return replace(own, images=train.images, labels=train.labels, views=every)
        plain = SelectionConfig(order="random", crops=1, tiles=1, candidates=0)
        name = f"random-{seed}"
        picked = self.pipeline.select(name, plain, derive_seed(self.config.seed, "random", seed))
        drawn = Views(own.views.config, own.views.seed, len(picked.labels))
        return replace(own, images=picked.images, labels=picked.labels, views=drawn)

    def rate(self, kind: str, network: str | None = None) -> float:
        """Choose the learning rate for one kind of labels, once, on held-out training images."""
        network = network or self.config.student.network
        config = configure_network(self.config.student, network)
        if len(config.rates) == 1:
            return config.rates[0]
        name = f"rates/{kind}" if network == self.config.student.network else f"rates/{network}-{kind}"
        data = self.data("chosen", 0)

        def build(work: Path) -> Mapping[str, Any]:
            def watch(label: str, run: Iterator[EpochState]) -> Iterator[EpochState]:
                return track(run, total=config.fit.epochs, label=f"{kind}, {label}", unit="epoch")

            source = self.source(kind, data, "chosen", 0) if kind == "generator" else self.online(kind)
            best, found = choose_rate(
                data,
                source,
                config,
                self.pipeline.held_out,
                seed=self.config.seed,
                device=self.pipeline.device,
                view_epochs=self.view_epochs(kind),
                watch=watch,
                crew=self.pipeline.crew,
            )
            return {"rate": best, "held_out_accuracy": found}

        settings = {"student": identify(config), "labels": kind, "views": to_dict(self.config.views)}
        inputs = self.inputs(kind, "chosen", 0)
        done = self.pipeline.run(name, "learning-rate", settings, inputs, build, together=True)
        return float(done.facts["rate"])

    def online(self, kind: str) -> LabelSource:
        """Return the source for ``kind`` without a store where there is one.

        Labels stored as numbers of every view are the teacher online; other codecs read their store. The
        generator is alone here, without stored residuals, so that it labels any view of any images.
        """
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
        if kind == "generator" and images == "chosen":
            return self.pipeline.archive.correct(self.online(kind))
        if kind in ("generator", "teacher"):
            return self.online(kind)
        if kind == "hard":
            self.small_store(images, seed, data)
            return HardLabels()
        if kind == "one-per-image":
            shape = (len(data), len(data.class_names))
            return OnePerImage(self.small_store(images, seed, data) / ONE_PER_IMAGE, shape)
        return StoredLabels(
            self.full_store(kind, images, seed, data),
            kind,
            (len(data), len(data.class_names)),
            codec=kind,
            epochs=self.view_epochs(kind) or self.config.student.fit.epochs,
        )

    def view_epochs(self, kind: str, images: str = "chosen") -> int | None:
        """Return how many epochs' views a student of ``kind`` goes round; None where each has its own."""
        if kind == "generator":
            return (self.config.projector.residual_epochs or None) if images == "chosen" else None
        codec = parse_codec(kind) if kind.startswith(PREFIX) else None
        if codec is None or codec.keep_one_in == 1:
            return None
        return codec.kept_epochs(self.config.student.fit.epochs)

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
            name, "labels", {"labels": "small"}, self.inputs("one-per-image", images, seed), build
        )
        return self.pipeline.out / name

    def full_store(self, kind: str, images: str, seed: int, data: TrainingSet) -> Path:
        """Write the teacher's labels of every view that students see, by a codec; return their folder.

        They are computed in the batches of the first seed's student; views do not depend on the student.
        """
        name = f"labels/{kind}" if images == "chosen" else f"labels/{kind}-{images}-{seed}"
        config = self.config.student
        order = config.seeds[0] if images == "chosen" else seed
        epochs = self.view_epochs(kind) or config.fit.epochs

        def build(work: Path) -> Mapping[str, Any]:
            crew = self.pipeline.crew
            done = crew.tell(stored_epochs(work))
            batches = training_batches(
                data, config.fit, seed=order, device=self.pipeline.device, first_epoch=done, crew=crew
            )
            total = (epochs - done) * -(-len(data) // (config.fit.batch_size * crew.size))
            store_labels(
                work,
                self.online("teacher"),
                iter(track(batches, total=total, label=f"storing labels ({kind})", unit="batch")),
                epochs=epochs,
                images=len(data),
                classes=len(data.class_names),
                codec=kind,
                seed=self.config.seed,
                crew=crew,
            )
            return {"epochs": epochs}

        settings = {
            "labels": kind,
            "epochs": config.fit.epochs,
            "batch_size": config.fit.batch_size,
            "order": order,
            "views": to_dict(self.config.views),
        }
        self.pipeline.run(name, "labels", settings, self.inputs(kind, images, seed), build, together=True)
        return self.pipeline.out / name

    def label_bytes(self, kind: str) -> int:
        """Return what the labels of ``kind`` take on disk, by stat of the files they are."""
        out = self.pipeline.out
        data = self.data("chosen", 0)
        if kind == "generator":
            return delta_bytes(out / "archive")
        if kind == "teacher":
            path = out / TEACHER_WEIGHED
            if self.pipeline.leads:
                save_weights(self.pipeline.teacher.classifier, path, torch.float16)
            return int(self.pipeline.crew.tell(path.stat().st_size if self.pipeline.leads else 0))
        if kind in ("hard", "one-per-image"):
            folder = self.small_store("chosen", 0, data)
            return (folder / (HARD if kind == "hard" else ONE_PER_IMAGE)).stat().st_size
        folder = self.full_store(kind, "chosen", 0, data)
        return store_bytes(folder)

    def name(
        self, kind: str, images: str, seed: int, network: str | None = None, views: str = AUGMENTED
    ) -> str:
        """Return the folder of one student, in that of the run."""
        other = "" if network in (None, self.config.student.network) else f"{network}-"
        shown = "" if views == AUGMENTED else f"-{views}"
        return f"students/{other}{kind}-{images}{shown}-{seed}"

    def student(
        self,
        kind: str,
        images: str,
        seed: int,
        rate: float,
        network: str | None = None,
        views: str = AUGMENTED,
    ) -> Measurement:
        """Train and score one student, or read what an earlier run of it found."""
        name = self.name(kind, images, seed, network, views)
        config = configure_network(self.config.student, network or self.config.student.network)
        fit = self.config.teacher.fit if images == ALL else config.fit
        config = replace(config, fit=replace(fit, lr=rate))
        data = self.data(images, seed, views)

        def build(work: Path) -> Mapping[str, Any]:
            student = build_student(data, config, seed)
            run: Iterator[EpochState] = train_student(
                student,
                data,
                self._labels(kind, data, images, seed, views, work),
                config,
                seed=seed,
                device=self.pipeline.device,
                checkpoint=work / CHECKPOINT_NAME,
                view_epochs=self.view_epochs(kind, images),
                crew=self.pipeline.crew,
            )
            self.pipeline.watch(name, run, config.fit.epochs)
            if not self.pipeline.leads:
                return {}
            save_weights(student, work / "student.safetensors")
            forward = fused(student.eval(), config.fit)
            accuracy = score(forward, self.pipeline.sources.test, self.pipeline.device)
            return {"accuracy": accuracy.to_dict(), "epochs": config.fit.epochs}

        views_shown = to_dict(data.views.config)
        own = {"labels": kind, "images": images, "seed": seed, "views": views_shown}
        settings = {**spell_student(config), **own}
        inputs = self.inputs(kind, images, seed)
        facts = self.pipeline.run(name, "student", settings, inputs, build, together=True).facts
        return Measurement.from_dict(facts["accuracy"])

    def _labels(
        self, kind: str, data: TrainingSet, images: str, seed: int, views: str, work: Path
    ) -> LabelSource:
        """Return the labels of a student, which are stored or weighed first where they are shipped."""
        if images == ALL:
            save_hard(work / HARD, data.labels)
            return HardLabels()
        # A plain view needs no store of its own: its label is what the teacher says to the image.
        return self.online(kind) if views == PLAIN else self.source(kind, data, images, seed)

    def inputs(self, kind: str, images: str, seed: int) -> dict[str, str]:
        """Return the digests of the stages that labels of ``kind`` depend on, so that no other voids them."""
        if images == ALL:
            return {
                "train": self.pipeline.data_digest["train"],
                "held_out": self.pipeline.held_out.fingerprint(),
            }
        labels_stage = "archive" if kind == "generator" else "teacher"
        images_stage = self.pipeline.images_stage if images == "chosen" else f"random-{seed}"
        return {name: self.pipeline.digest(name) for name in (labels_stage, images_stage)}
