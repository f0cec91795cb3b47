"""Run the stages of a condensation in order, each into a folder of its own that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from aerogel.condense import archive as shelf
from aerogel.condense.adapters import choose_codec, store_adapter
from aerogel.condense.checks import last_weak_teacher
from aerogel.condense.codecs.naming import require_codecs
from aerogel.condense.condensed import CondensedSet, load_condensed, probe_logits
from aerogel.condense.config import AdapterCodec, CondenseConfig, SelectionConfig
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
from aerogel.condense.identity import identify
from aerogel.condense.packing import pack_set
from aerogel.condense.projector import Fidelity, adapt, build_projector, load_adapter
from aerogel.condense.refine import (
    gather_images,
    load_refined,
    refine_images,
    require_mosaics,
    save_refined,
)
from aerogel.condense.residual import store_residual
from aerogel.condense.selection import Selection, load_selection, save_selection, select_images
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
from aerogel.core.canonical import canonical_json
from aerogel.core.config import to_dict
from aerogel.core.crew import Crew
from aerogel.core.devices import choose_device
from aerogel.core.manifests import Manifest
from aerogel.core.progress import announce, track
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.core.staging import Staging
from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure import measure_accuracy
from aerogel.zoo.launch import join_crew

STAGES = ("teacher", "selection", "generator", "archive")
REFINED = "refined"
_PROBE_IMAGES = 8


class Pipeline:
    """Condense ``sources`` into ``out``, stage by stage; a finished stage is opened, a cut one continued.

    Each stage method makes sure of the stages before it and returns what its folder holds. Where accelerate
    started several processes, each makes the same calls: they share trainings, selection and stored labels,
    and the first one writes.
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
        residual = [config.projector.residual] if config.projector.residual else []
        require_codecs([*config.student.labels, *residual], len(sources.train.class_names))
        self.out = out
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
        self.staging = Staging(out, config.seed, overwrite, command, join_crew(self.device))
        if self.crew.size > 1:
            self.crew.require_agreement(canonical_json([to_dict(config), self.data_digest]))
        if config.projector.budget is not None:
            # Before any training: a budget that nothing fits needs nothing trained to be known.
            announce(f"the adapter is stored in {self.codec}")

    @property
    def crew(self) -> Crew:
        """Return the processes that make this run."""
        return self.staging.crew

    @property
    def leads(self) -> bool:
        """Tell whether this process writes what the run leaves behind; of several, only the first does."""
        return self.crew.leads

    def run(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
        *,
        together: bool = False,
    ) -> Manifest:
        """Run one stage once, and note in ``timings.json`` how long it took.

        The first process alone calls ``build``; with ``together`` all do, and the others write nothing and
        return no facts.
        """
        return self.staging.run(name, kind, settings, inputs, build, together=together)

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
        together = config.path is None
        self.run("teacher", "teacher", settings, inputs, self._build_teacher, together=together)
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
                classifier,
                self.train,
                config,
                seed=self.config.seed,
                device=self.device,
                work=work,
                crew=self.crew,
            )
            self.watch("teacher", run, config.fit.epochs)
            if not self.leads:
                return {}
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
                crew=self.crew,
            )
            if not self.leads:
                return {}
            save_selection(found, work)
            return {"tiles": found.tiles, "images": len(found.labels)}

        settings = {"selection": to_dict(chosen), "ipc": self.config.ipc, "seed": seed}
        inputs = {**self.data_digest, "teacher": self.digest("teacher")}
        manifest = self.run(name, "selection", settings, inputs, build, together=True)
        return load_selection(self.out / name, int(manifest.facts["tiles"]))

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
            save_refined(found, work)
            return {"gap_before": before, "gap_after": after, "steps": config.steps}

        settings = {"refine": to_dict(config), "grid": self.backbone.grid}
        inputs = {"selection": self.digest("selection"), "backbone": self.backbone.sha256}
        self.run(REFINED, "refined-images", settings, {**inputs, **self.data_digest}, build)
        return load_refined(self.out / REFINED, chosen)

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

    @cached_property
    def codec(self) -> AdapterCodec:
        """Return the number format of the stored adapter."""
        return choose_codec(self.backbone, self.config.projector, len(self.sources.train.class_names))

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
        own = replace(config, residual=None, residual_epochs=0)
        settings = {"projector": identify(own), "views": to_dict(self.config.views)}
        self.run("generator", "label-generator", settings, inputs, self._build_generator, together=True)
        return load_adapter(self.plain_projector(), self.out / "generator").to(self.device)

    def digest(self, name: str) -> str:
        """Return the digest of the stage called ``name``, running it first where needed."""
        return self.manifest(name).digest

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of the stage called ``name``, running it first where needed."""
        if name not in self.staging.done and name in (*STAGES, REFINED):
            getattr(self, name)
        return self.staging.done[name]

    def _build_generator(self, work: Path) -> Mapping[str, Any]:
        config, views = replace(self.config.projector, dtype=self.codec), self.config.views
        adapted = adapt(
            self.plain_projector(),
            self.backbone,
            config,
            len(self.sources.train.class_names),
            seed=derive_seed(self.config.seed, "generator/adapter"),
        )
        teachers = pick_teachers(self.teacher.snapshots, config.weak_teachers)
        seed, norms = self.config.seed, self.backbone.norms
        lesson = Lesson(
            adapted, self.train, teachers, config, views, seed, self.device, work, norms, self.crew
        )
        self.watch("label generator", train_generator(lesson), config.fit.epochs)
        if config.tune_epochs:
            run = tune_generator(lesson, self.training_set)
            self.watch("tuning it to the images", run, config.tune_epochs)
        if not self.leads:
            return {}
        size = store_adapter(adapted, self.plain_projector(), work, self.codec)
        stored = load_adapter(self.plain_projector(), work).to(self.device)
        fidelity = self._measure(stored, self.teacher.classifier.to(self.device))
        require_above_chance(fidelity[0], len(self.sources.train.class_names))
        trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
        exact = adapted.to(self.device).eval()
        return {
            "fidelity": [asdict(each) for each in fidelity],
            "codec": self.codec,
            "adapter_bytes": size,
            "codec_fidelity": [asdict(each) for each in self._measure(stored, exact)],
            "trained_parameters": trained,
            "losses": read_losses(work / CHECKPOINT_NAME),
        }

    def _measure(self, generator: nn.Module, teacher: nn.Module) -> tuple[Fidelity, ...]:
        return measure_fidelity(
            generator,
            teacher,
            self.held_out,
            self.training_set,
            self.config.views,
            seed=self.config.seed,
            device=self.device,
        )

    @cached_property
    def archive(self) -> CondensedSet:
        """Pack images and label generator into the folder that is shipped, and open it as a user would."""
        generator = self.generator
        config = self.config
        inputs = {name: self.digest(name) for name in ("teacher", self.images_stage, "generator")}
        if config.projector.residual is not None:
            inputs[shelf.RESIDUAL] = store_residual(self).digest

        def build(work: Path) -> Mapping[str, Any]:
            # On the CPU, where loading checks them: a GPU may round a convolution more coarsely.
            probe = probe_logits(generator.cpu(), self.refined.images, _PROBE_IMAGES).tolist()
            return pack_set(self, work, probe)

        settings = {"projector": config.projector.backbone, "ipc": config.ipc, "views": to_dict(config.views)}
        self.run("archive", shelf.KIND, settings, inputs, build)
        return load_condensed(self.out / "archive")
