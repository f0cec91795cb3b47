"""Run the stages of a condensation in order, each into a folder of its own that survives a kill."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save

from aerogel.condense import archive as shelf
from aerogel.condense.checks import last_weak_teacher
from aerogel.condense.condensed import CondensedSet, load_condensed, probe_logits
from aerogel.condense.config import CondenseConfig, SelectionConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.fit import EpochState, read_losses
from aerogel.condense.generator import (
    Lesson,
    measure_fidelity,
    pick_teachers,
    require_above_chance,
    train_generator,
    tune_generator,
)
from aerogel.condense.packing import describe_set
from aerogel.condense.projector import adapt, build_projector, load_adapter, save_adapter
from aerogel.condense.refine import gather_images, refine_images, require_mosaics
from aerogel.condense.run_folder import TIMINGS
from aerogel.condense.selection import Patch, Selection, select_images
from aerogel.condense.sources import Sources
from aerogel.condense.student import TrainingSet
from aerogel.condense.teacher import (
    Teacher,
    build_teacher,
    describe_teacher,
    identify_import,
    import_teacher,
    load_teacher,
    predict,
    require_same_classes,
    train_teacher,
)
from aerogel.condense.views import Views
from aerogel.core.config import to_dict
from aerogel.core.devices import choose_device
from aerogel.core.folders import write_bytes_atomic, write_text_atomic
from aerogel.core.manifests import Manifest
from aerogel.core.progress import announce, track
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME, Stage, run_stage
from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure import measure_accuracy

STAGES = ("teacher", "selection", "generator", "archive")
REFINED = "refined"
_PROBE_IMAGES = 8


class Pipeline:
    """Condense ``sources`` into ``out``, stage by stage; a finished stage is opened, a cut one continued.

    Each stage method makes sure of the stages before it and returns what its folder holds.
    """

    def __init__(
        self,
        config: CondenseConfig,
        sources: Sources,
        out: Path,
        *,
        overwrite: bool = False,
        command: str | None = None,
    ) -> None:
        self.config = config
        self.sources = sources.check()
        self.out = out
        self.command = command
        self.overwrite = overwrite
        device = choose_device(config.device)
        announce(f"device: {device.value} ({device.reason})")
        self.device = device.value
        self.train, self.held_out = sources.train.split(config.teacher.held_out, config.seed, "held-out")
        if not len(self.held_out):
            raise DataError(
                compose(
                    "training images to hold out, to measure the label generator on",
                    f"none: a share of {config.teacher.held_out} of {len(sources.train)} images, with every "
                    "class's first image kept",
                    "raise teacher.held_out, or add images",
                )
            )
        if config.refine.steps:
            require_mosaics(config.selection, int(self.train.shape[-1]))
        self._done: dict[str, Manifest] = {}

    def run(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Manifest:
        """Run one stage once and note how long it took, added up over interruptions, in ``timings.json``."""
        if name not in self._done:
            begin = time.monotonic()
            stage = Stage(self.out / name, kind, settings, inputs, self.config.seed, self.command)
            self._done[name] = run_stage(stage, build, overwrite=self.overwrite)
            self._note_time(name, time.monotonic() - begin)
        return self._done[name]

    def watch(self, label: str, run: Iterator[EpochState], epochs: int) -> list[EpochState]:
        """Train to the end with a progress bar."""
        return list(track(run, total=epochs, label=label, unit="epoch"))

    @cached_property
    def data_digest(self) -> dict[str, str]:
        """Return the fingerprints of the training and the test images."""
        return {"train": self.sources.train.fingerprint(), "test": self.sources.test.fingerprint()}

    @cached_property
    def teacher(self) -> Teacher:
        """Train the teacher, or import the one at ``config.teacher.path``."""
        config = self.config.teacher
        settings, inputs = to_dict(config), self.data_digest
        if config.path is not None:
            # Known by its content: the same teacher in another place is the same teacher.
            settings["path"] = None
            inputs = {**inputs, "imported": identify_import(config.path)}
        self.run("teacher", "teacher", settings, inputs, self._build_teacher)
        teacher = load_teacher(self.out / "teacher")
        require_same_classes(teacher, self.sources.train)
        wanted = self.config.projector.weak_teachers
        if last_weak_teacher(wanted) > len(teacher.snapshots):
            raise ConfigError(
                compose(
                    f"projector.weak_teachers of at most {len(teacher.snapshots)}, the teacher's snapshots",
                    f"{wanted if isinstance(wanted, int) else list(wanted)}",
                    "lower it, or train a teacher with more snapshots",
                )
            )
        return teacher

    def _build_teacher(self, work: Path) -> Mapping[str, Any]:
        config = self.config.teacher
        if config.path is not None:
            classifier = import_teacher(config.path, self.sources.train, work).classifier.to(self.device)
        else:
            classifier = build_teacher(self.train, config, self.config.seed)
            run = train_teacher(
                classifier, self.train, config, seed=self.config.seed, device=self.device, work=work
            )
            self.watch("teacher", run, config.fit.epochs)
        figures = {
            name: measure_accuracy(
                predict(classifier, part.images, self.device), part.labels, name=name
            ).to_dict()
            for name, part in (("test_accuracy", self.sources.test), ("held_out_accuracy", self.held_out))
        }
        if config.path is None:
            describe_teacher(self.train, config, figures, work)
        return {**figures, "losses": read_losses(work / CHECKPOINT_NAME)}

    def select(
        self, name: str = "selection", config: SelectionConfig | None = None, seed: int | None = None
    ) -> Selection:
        """Pick the images; ``name`` is the stage's folder, so that a baseline can stand beside the choice."""
        chosen = config or self.config.selection
        seed = self.config.seed if seed is None else seed

        def build(work: Path) -> Mapping[str, Any]:
            found = select_images(
                self.train,
                self.teacher.classifier,
                chosen,
                ipc=self.config.ipc,
                seed=seed,
                device=self.device,
            )
            tensors = {"images": found.images, "labels": found.labels}
            write_bytes_atomic(work / "images.safetensors", save(tensors))
            origins = [[patch.to_dict() for patch in patches] for patches in found.patches]
            write_text_atomic(work / "provenance.json", json.dumps(origins, indent=1) + "\n")
            return {"tiles": found.tiles, "images": len(found.labels)}

        settings = {"selection": to_dict(chosen), "ipc": self.config.ipc, "seed": seed}
        inputs = {**self.data_digest, "teacher": self.digest("teacher")}
        manifest = self.run(name, "selection", settings, inputs, build)
        tensors = load_file(self.out / name / "images.safetensors")
        origins = json.loads((self.out / name / "provenance.json").read_text(encoding="utf-8"))
        patches = tuple(
            tuple(Patch(patch["source"], tuple(patch["box"]), patch["loss"]) for patch in row)
            for row in origins
        )
        return Selection(tensors["images"], tensors["labels"], patches, int(manifest.facts["tiles"]))

    @cached_property
    def selection(self) -> Selection:
        """Return the chosen images."""
        return self.select()

    @property
    def images_stage(self) -> str:
        """Return the stage that the images are of: "refined" where they are updated, else "selection"."""
        return REFINED if self.config.refine.steps else "selection"

    @cached_property
    def refined(self) -> Selection:
        """Return the chosen images with their pixels updated, or as they are where that is off."""
        chosen, config = self.selection, self.config.refine
        if not config.steps:
            return chosen

        def build(work: Path) -> Mapping[str, Any]:
            groups = work / CHECKPOINT_NAME
            run = refine_images(
                self.train, chosen, self.backbone.module, config, device=self.device, checkpoint=groups
            )
            for _ in track(run, total=None, label="updating the images", unit="group"):
                pass
            found, before, after = gather_images(chosen, groups)
            write_bytes_atomic(work / "images.safetensors", save({"images": found.images}))
            return {"gap_before": before, "gap_after": after, "steps": config.steps}

        settings = {"refine": to_dict(config), "grid": self.backbone.grid}
        inputs = {"selection": self.digest("selection"), "backbone": self.backbone.sha256}
        self.run(REFINED, "refined-images", settings, {**inputs, **self.data_digest}, build)
        images = load_file(self.out / REFINED / "images.safetensors")["images"]
        return replace(chosen, images=images)

    @cached_property
    def training_set(self) -> TrainingSet:
        """Return what a student of the chosen images sees: that of the archive, before there is one."""
        chosen = self.refined
        mean, std = self.train.statistics()
        return TrainingSet(
            chosen.images,
            chosen.labels,
            Views(self.config.views, self.view_seed, len(chosen.labels), chosen.tiles),
            self.train.class_names,
            mean,
            std,
        )

    @property
    def view_seed(self) -> int:
        """Return the seed of the views of the condensed images."""
        return derive_seed(self.config.seed, "condensed/views")

    @cached_property
    def backbone(self) -> Backbone:
        """Load the label generator's backbone."""
        config, size = self.config.projector, int(self.train.shape[-1])
        return load_backbone(config.backbone, None if config.grid == "auto" else config.grid, size=size)

    def plain_projector(self) -> Any:
        """Build the projector with its initial head from the chosen images."""
        chosen = self.refined
        names = self.sources.train.class_names
        return build_projector(
            self.backbone, chosen.images, chosen.labels, names, self.config.projector.templates
        )

    @cached_property
    def generator(self) -> PeftModel:
        """Train the label generator and refuse one that is no better than chance."""
        config = self.config.projector
        inputs = {
            "teacher": self.digest("teacher"),
            self.images_stage: self.digest(self.images_stage),
            "backbone": self.backbone.sha256,
        }
        settings = {"projector": to_dict(config), "views": to_dict(self.config.views)}
        self.run("generator", "label-generator", settings, inputs, self._build_generator)
        return load_adapter(self.plain_projector(), self.out / "generator").to(self.device)

    def digest(self, name: str) -> str:
        """Return the digest of the stage called ``name``, running it first where needed."""
        return self.manifest(name).digest

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of the stage called ``name``, running it first where needed."""
        if name not in self._done and name in (*STAGES, REFINED):
            getattr(self, name)
        return self._done[name]

    def _build_generator(self, work: Path) -> Mapping[str, Any]:
        config, views = self.config.projector, self.config.views
        adapted = adapt(
            self.plain_projector(),
            self.backbone,
            config,
            len(self.sources.train.class_names),
            seed=derive_seed(self.config.seed, "generator/adapter"),
        )
        teachers = pick_teachers(self.teacher.snapshots, config.weak_teachers)
        seed, norms = self.config.seed, self.backbone.norms
        lesson = Lesson(adapted, self.train, teachers, config, views, seed, self.device, work, norms)
        self.watch("label generator", train_generator(lesson), config.fit.epochs)
        if config.tune_epochs:
            run = tune_generator(lesson, self.training_set)
            self.watch("tuning it to the images", run, config.tune_epochs)
        save_adapter(adapted, work, getattr(torch, config.dtype))
        stored = load_adapter(self.plain_projector(), work).to(self.device)
        fidelity = measure_fidelity(
            stored,
            self.teacher.classifier.to(self.device),
            self.held_out,
            self.training_set,
            views,
            seed=seed,
            device=self.device,
        )
        require_above_chance(fidelity[0], len(self.sources.train.class_names))
        trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
        return {
            "fidelity": [asdict(each) for each in fidelity],
            "trained_parameters": trained,
            "losses": read_losses(work / CHECKPOINT_NAME),
        }

    @cached_property
    def archive(self) -> CondensedSet:
        """Pack images and label generator into the folder that is shipped, and open it as a user would."""
        generator = self.generator
        config = self.config
        inputs = {name: self.digest(name) for name in ("teacher", self.images_stage, "generator")}

        def build(work: Path) -> Mapping[str, Any]:
            chosen = self.refined
            ids = tuple("+".join(patch.source for patch in patches) for patches in chosen.patches)
            names = self.sources.train.class_names
            shelf.write_images(
                work / shelf.IMAGES, shelf.StoredImages(chosen.images, chosen.labels, ids), names
            )
            (work / shelf.LABELS).mkdir(exist_ok=True)
            for path in sorted((self.out / "generator").iterdir()):
                if path.name.startswith("adapter_"):
                    shutil.copyfile(path, work / shelf.LABELS / path.name)
            facts = describe_set(self, work, probe_logits(generator, chosen.images, _PROBE_IMAGES).tolist())
            shelf.write_card(work / "README.md", name=self.sources.train.name, facts=facts)
            return facts

        settings = {"projector": config.projector.backbone, "ipc": config.ipc, "views": to_dict(config.views)}
        self.run("archive", shelf.KIND, settings, inputs, build)
        return load_condensed(self.out / "archive")

    def _note_time(self, name: str, seconds: float) -> None:
        path = self.out / TIMINGS
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known[name] = round(known.get(name, 0.0) + seconds, 3)
        write_text_atomic(path, json.dumps(known, indent=2, sort_keys=True) + "\n")
