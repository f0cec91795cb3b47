"""Make labels of every kind for one condensed set, weigh them, and train students on them, in stages."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rate_labels import Labels, address_views, render_views
from rate_settings import SMALL_KINDS, Generated, claim, parse_generator
from rate_verdicts import CODEC, CORRECTED, GENERATOR, OTHER

from aerogel.condense import Pipeline
from aerogel.condense.adapters import store_adapter
from aerogel.condense.codecs.naming import PREFIX, parse_codec
from aerogel.condense.codecs.shards import store_bytes, stored_epochs
from aerogel.condense.config import AdapterCodec
from aerogel.condense.fit import fused
from aerogel.condense.generator import (
    CONDENSED_TARGETS,
    REAL_TARGETS,
    Lesson,
    pick_teachers,
    store_targets,
    train_generator,
    tune_generator,
)
from aerogel.condense.identity import identify
from aerogel.condense.labels import (
    CorrectedLabels,
    HardLabels,
    LabelSource,
    NetworkLabels,
    OnePerImage,
    ResidualLabels,
    StoredLabels,
)
from aerogel.condense.lineup import spell_student
from aerogel.condense.merged import Merged
from aerogel.condense.projector import adapt, compare_logits, load_adapter
from aerogel.condense.storing import save_hard, save_one_per_image, store_labels
from aerogel.condense.student import TrainingSet, build_student, choose_rate, score, train_student
from aerogel.core.config import to_dict
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME

EXACT = "stored-fp32"
TEACHER = "labels/teacher"
ADAPTER, CACHE = "adapter", "cache"


def find_kind(name: str) -> str:
    """Return the kind of a row, by which it is judged."""
    if name.startswith(GENERATOR):
        return CORRECTED if "+" in name else GENERATOR
    return CODEC if name.startswith(PREFIX) else OTHER


class Bench:
    """Make the rows of the benchmark beside the stages of ``pipeline``.

    Views depend on neither network nor seed. So the labels of all views that the students see are computed
    once, by the teacher and by each generator; codecs encode the teacher's from there, and students look them
    up.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config
        self.out = pipeline.out
        self.device = pipeline.device
        self.epochs = pipeline.config.student.fit.epochs
        self.shared: dict[str, str] = {}

    def prepare(self) -> None:
        """Make what all rows need: teacher, images, the teacher's labels, the students' learning rate.

        Raises:
            BusyError: another process is making it.
        """
        with claim(self.out / "prepared"):
            self.shared = {name: self.pipeline.digest(name) for name in ("teacher", "selection")}
            self.shared["labels"] = self._store_teacher()
            self.rate = self._choose_rate()

    @cached_property
    def data(self) -> TrainingSet:
        """Return what the students see."""
        return self.pipeline.training_set

    @cached_property
    def teacher_labels(self) -> StoredLabels:
        """Return the teacher's labels of all views, in float32."""
        return StoredLabels(self.out / TEACHER, "teacher", epochs=self.epochs)

    def row(self, name: str) -> dict[str, Any]:
        """Return the figures of one row.

        Raises:
            BusyError: another process is making it, or something that it needs.
        """
        with claim(self.out / "rows" / name):
            labels = self.labels(name)
            values = [self._train_student(name, labels, seed) for seed in self.config.student.seeds]
        return {
            "kind": find_kind(name),
            "values": values,
            "mean": fmean(values),
            "std": stdev(values) if len(values) > 1 else None,
            "seeds": len(values),
            "bytes": labels.bytes,
            "fidelity": labels.fidelity,
        }

    def labels(self, name: str) -> Labels:
        """Return the labels of one row, making them first where needed."""
        made = parse_generator(name.removeprefix(f"{GENERATOR}-"))
        if made is not None:
            return self._corrected(name, made) if made.residual else self._generated(made.rank, made.codec)
        return self._small(name) if name in SMALL_KINDS else self._coded(name)

    def _compare(self, source: LabelSource, epochs: int) -> dict[str, Any]:
        """Compare labels with the teacher's on all views that the students see."""
        shown = list(address_views(self.data, epochs))
        theirs, ours = (
            torch.cat([each.logits(batch) for batch in shown])  # type: ignore[misc]
            for each in (self.teacher_labels, source)
        )
        found = asdict(compare_logits("shown", theirs, ours))
        return {key: found[key] for key in ("agreement", "kl", "mse", "samples")}

    def _store(self, folder: Path, source: LabelSource, codec: str, epochs: int, *, drawn: bool) -> None:
        """Write labels of ``epochs`` epochs of views by a codec; ``drawn`` where the source looks at them."""
        first = stored_epochs(folder)
        batches = (
            render_views(self.data, epochs, self.device, first)
            if drawn
            else address_views(self.data, epochs, first)
        )
        store_labels(
            folder,
            source,
            batches,
            epochs=epochs,
            images=len(self.data),
            classes=len(self.data.class_names),
            codec=codec,
            seed=self.config.seed,
        )

    def _inputs(self) -> dict[str, str]:
        return {name: self.shared[name] for name in ("teacher", "selection")}

    def _store_teacher(self) -> str:
        def build(work: Path) -> Mapping[str, Any]:
            network = fused(self.pipeline.teacher.classifier.to(self.device).eval(), self.config.student.fit)
            self._store(work, NetworkLabels("teacher", network), EXACT, self.epochs, drawn=True)
            return {}

        settings = {"epochs": self.epochs, "views": to_dict(self.config.views)}
        return self.pipeline.run(TEACHER, "labels", settings, self._inputs(), build).digest

    def _choose_rate(self) -> float:
        """Choose the students' learning rate, with full labels on held-out training images, for all rows."""
        config = self.config.student
        if len(config.rates) == 1:
            return config.rates[0]

        def build(work: Path) -> Mapping[str, Any]:
            best, found = choose_rate(
                self.data,
                self.teacher_labels,
                config,
                self.pipeline.held_out,
                seed=self.config.seed,
                device=self.device,
            )
            return {"rate": best, "held_out_accuracy": found}

        settings = {**spell_student(config), "rates": list(config.rates)}
        inputs = {**self._inputs(), "labels": self.shared["labels"]}
        return float(self.pipeline.run("rate", "learning-rate", settings, inputs, build).facts["rate"])

    def _small(self, name: str) -> Labels:
        file = f"{name}.safetensors"

        def build(work: Path) -> Mapping[str, Any]:
            if name == "hard":
                save_hard(work / file, self.data.labels)
                return {"fidelity": None}
            teacher = self.pipeline.teacher.classifier.to(self.device)
            save_one_per_image(work / file, teacher, self.data.images.to(self.device), torch.float16)
            return {"fidelity": self._compare(OnePerImage(work / file), self.epochs)}

        path = self.out / "labels" / name / file
        done = self.pipeline.run(f"labels/{name}", "labels", {"labels": name}, self._inputs(), build)
        source = HardLabels() if name == "hard" else OnePerImage(path)
        return Labels(source, path.stat().st_size, done.facts["fidelity"], done.digest)

    def _coded(self, name: str) -> Labels:
        codec = parse_codec(name)
        epochs = codec.kept_epochs(self.epochs)

        def build(work: Path) -> Mapping[str, Any]:
            self._store(work, self.teacher_labels, name, epochs, drawn=False)
            return {"fidelity": self._compare(StoredLabels(work, name, codec=name), epochs)}

        inputs = {**self._inputs(), "labels": self.shared["labels"]}
        settings = {"labels": name, "epochs": self.epochs}
        done = self.pipeline.run(f"labels/{name}", "labels", settings, inputs, build)
        folder = self.out / "labels" / name
        source = StoredLabels(folder, name, codec=name, epochs=epochs)
        return Labels(
            source,
            store_bytes(folder),
            done.facts["fidelity"],
            done.digest,
            None if epochs == self.epochs else epochs,
        )

    def _lesson(self, rank: int, work: Path) -> Lesson:
        """Return what a generator is trained with, its adapter in float32."""
        pipeline = self.pipeline
        config = replace(self.config.projector, rank=rank, dtype="float32")
        adapted = adapt(
            pipeline.plain_projector(),
            pipeline.backbone,
            config,
            len(self.data.class_names),
            seed=derive_seed(self.config.seed, "generator/adapter"),
        )
        teachers = pick_teachers(pipeline.teacher.snapshots, config.weak_teachers)
        return Lesson(
            adapted,
            pipeline.train,
            teachers,
            config,
            self.config.views,
            self.config.seed,
            self.device,
            work,
            pipeline.backbone.norms,
        )

    def _targets(self) -> str:
        """Store what the generators of all ranks are trained towards, the weak teachers' mean logits."""

        def build(work: Path) -> Mapping[str, Any]:
            lesson, settings = self._lesson(1, work), self.config.projector
            real, tuned = settings.target_epochs, settings.tune_target_epochs
            if real:
                store_targets(lesson, lesson.data, lesson.views, real, REAL_TARGETS)
            if tuned:
                store_targets(lesson, self.data, self.data.views, tuned, CONDENSED_TARGETS)
            if real or tuned:
                shutil.copytree(lesson.checkpoint, work, dirs_exist_ok=True)
            return {}

        projector = self.config.projector
        settings = {
            "epochs": [projector.target_epochs, projector.tune_target_epochs],
            "weak_teachers": projector.weak_teachers,
            "dtype": projector.fit.dtype,
            "views": to_dict(self.config.views),
        }
        with claim(self.out / "targets-made"):
            return self.pipeline.run("targets", "targets", settings, self._inputs(), build).digest

    def _train_generator(self, rank: int, tuned: int) -> str:
        """Train the generator of one rank, or find it trained; return the digest of its stage.

        ``tuned`` is how many epochs of the students' views it is tuned to.
        """
        targets, tuning = self._targets(), replace(self.config.projector, tune_target_epochs=tuned)

        def build(work: Path) -> Mapping[str, Any]:
            lesson = replace(self._lesson(rank, work), config=replace(tuning, rank=rank, dtype="float32"))
            for name in (REAL_TARGETS, CONDENSED_TARGETS):
                if (self.out / "targets" / name).exists():
                    place = lesson.checkpoint / name
                    shutil.copytree(self.out / "targets" / name, place, dirs_exist_ok=True)
            self.pipeline.watch(f"rank {rank}", train_generator(lesson), lesson.config.fit.epochs)
            if lesson.config.tune_epochs:
                run = tune_generator(lesson, self.data)
                self.pipeline.watch(f"rank {rank}, tuning", run, lesson.config.tune_epochs)
            store_adapter(lesson.adapted, self.pipeline.plain_projector(), work, "float32")
            return {}

        projector = identify(replace(tuning, rank=rank, dtype="float32"))
        settings = {"projector": projector, "views": to_dict(self.config.views)}
        inputs = {**self._inputs(), "targets": targets, "backbone": self.pipeline.backbone.sha256}
        place = self._place(rank, tuned)
        with claim(self.out / f"{place}-training"):
            return self.pipeline.run(place, "label-generator", settings, inputs, build).digest

    def _place(self, rank: int, tuned: int) -> str:
        """Return the folder of a generator."""
        own = tuned == self.config.projector.tune_target_epochs
        return f"generators/rank-{rank}" if own else f"generators/rank-{rank}-tuned-to-{tuned}"

    def _generated(self, rank: int, codec: AdapterCodec, epochs: int | None = None) -> Labels:
        """Return a generator's labels; with ``epochs``, of one tuned to the views of so many, for these."""
        every = self.config.projector.tune_target_epochs
        tuned = every if epochs is None else min(epochs, self.config.projector.tune_epochs)
        shown = epochs or self.epochs
        trained = self._train_generator(rank, tuned)

        def build(work: Path) -> Mapping[str, Any]:
            pipeline = self.pipeline
            exact = load_adapter(pipeline.plain_projector(), self.out / self._place(rank, tuned))
            size = store_adapter(exact, pipeline.plain_projector(), work / ADAPTER, codec)
            adapted = load_adapter(pipeline.plain_projector(), work / ADAPTER).to(self.device)
            network = fused(Merged(adapted, pipeline.backbone.norms).eval(), self.config.student.fit)
            (work / CACHE).mkdir(exist_ok=True)
            self._store(work / CACHE, NetworkLabels(GENERATOR, network), EXACT, shown, drawn=True)
            found = self._compare(StoredLabels(work / CACHE, GENERATOR), shown)
            return {"bytes": size, "fidelity": found}

        name = f"labels/{GENERATOR}-{rank}-{codec}{'' if epochs is None else f'-of-{epochs}'}"
        inputs = {**self._inputs(), "generator": trained, "labels": self.shared["labels"]}
        settings = {"codec": codec, "epochs": shown}
        done = self.pipeline.run(name, "labels", settings, inputs, build)
        source = StoredLabels(self.out / name / CACHE, GENERATOR, epochs=shown)
        return Labels(source, int(done.facts["bytes"]), done.facts["fidelity"], done.digest)

    def _corrected(self, name: str, made: Generated) -> Labels:
        """Return the labels of a generator tuned to the first epochs' views, and corrected by residuals."""
        plain = self._generated(made.rank, made.codec, made.epochs)
        codec = str(made.residual)
        place = f"labels/{name}"

        def build(work: Path) -> Mapping[str, Any]:
            left = ResidualLabels(self.teacher_labels, plain.source)
            self._store(work, left, codec, made.epochs, drawn=False)
            source = CorrectedLabels(plain.source, StoredLabels(work, name, codec=codec))
            return {"fidelity": self._compare(source, made.epochs)}

        inputs = {**self._inputs(), "generator": plain.digest, "labels": self.shared["labels"]}
        settings = {"codec": codec, "epochs": made.epochs}
        done = self.pipeline.run(place, "labels", settings, inputs, build)
        stored = StoredLabels(self.out / place, name, codec=codec, epochs=made.epochs)
        source = CorrectedLabels(plain.source, stored)
        size = plain.bytes + store_bytes(self.out / place)
        return Labels(source, size, done.facts["fidelity"], done.digest, made.epochs)

    def _train_student(self, name: str, labels: Labels, seed: int) -> float:
        """Train and score one student, or read what an earlier run of it found, in percent."""
        config = replace(self.config.student, fit=replace(self.config.student.fit, lr=self.rate))

        def build(work: Path) -> Mapping[str, Any]:
            student = build_student(self.data, config, seed)
            run = train_student(
                student,
                self.data,
                labels.source,
                config,
                seed=seed,
                device=self.device,
                checkpoint=work / CHECKPOINT_NAME,
                view_epochs=labels.epochs,
            )
            self.pipeline.watch(f"{name}, seed {seed}", run, self.epochs)
            found = score(fused(student.eval(), config.fit), self.pipeline.sources.test, self.device)
            return {"accuracy": found.value}

        settings = {**spell_student(config), "labels": name, "seed": seed}
        inputs = {"labels": labels.digest, "selection": self.shared["selection"]}
        done = self.pipeline.run(f"students/{name}-{seed}", "student", settings, inputs, build)
        return float(done.facts["accuracy"])
