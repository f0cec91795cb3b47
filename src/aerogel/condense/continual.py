"""Train students on classes that arrive in groups, from a finished run (as DM does, arXiv 2110.04181)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aerogel.condense.account import open_run
from aerogel.condense.api import open_sources
from aerogel.condense.comparison import Comparison
from aerogel.condense.curriculum import (
    CONTINUAL,
    Curriculum,
    Lane,
    arrange_classes,
    sum_up_steps,
    write_curriculum,
)
from aerogel.condense.fit import EpochState
from aerogel.condense.labels import Batch, LabelSource
from aerogel.condense.lineup import CHOSEN, RANDOM, configure_network, spell_student
from aerogel.condense.pipeline import Pipeline
from aerogel.condense.student import TrainingSet, build_student, score, train_student
from aerogel.condense.views import Views
from aerogel.core.config import to_dict
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import ConfigError, compose
from aerogel.measure import Measurement
from aerogel.zoo.imageset import ImageSet

ContinualLabels = Literal["generator", "teacher", "hard"]
_KINDS = ("generator", "teacher", "hard")


@dataclass(frozen=True)
class SeenLabels:
    """Give the labels of ``source`` cut to some classes, in their order."""

    source: LabelSource
    classes: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self.source.name

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the source's logits [B, classes] for these classes, or None."""
        found = self.source.logits(batch)
        return None if found is None else found[:, list(self.classes)]


def keep_classes(data: TrainingSet, classes: Sequence[int]) -> TrainingSet:
    """Return the images of ``classes``, labelled by the place of their class in that order.

    Views are addressed anew, so that CutMix partners are among the images that are left.
    """
    kept, labels = _keep(data.labels, classes)
    views = Views(data.views.config, data.views.seed, len(labels), data.views.tiles)
    names = tuple(data.class_names[label] for label in classes)
    return replace(data, images=data.images[kept], labels=labels, views=views, class_names=names)


def keep_tested(test: ImageSet, classes: Sequence[int]) -> ImageSet:
    """Return the test images of ``classes``, labelled like those of :func:`keep_classes`."""
    kept, labels = _keep(test.labels, classes)
    names = tuple(test.class_names[label] for label in classes)
    ids = tuple(test.ids[index] for index in kept.tolist())
    return replace(test, images=test.images[kept], labels=labels, class_names=names, ids=ids)


def _keep(labels: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    places = torch.full((max(int(labels.max()), *classes) + 1,), -1)
    places[list(classes)] = torch.arange(len(classes))
    moved = places[labels]
    kept = torch.nonzero(moved >= 0)[:, 0]
    return kept, moved[kept]


class Continual:
    """Train and score a student at every step, beside the stages of a run, in resumable folders."""

    def __init__(self, comparison: Comparison, steps: int) -> None:
        self.comparison = comparison
        self.pipeline = comparison.pipeline
        self.steps = steps

    def groups(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """Return the classes that arrive at each step for the students of ``seed``."""
        return arrange_classes(len(self.pipeline.sources.train.class_names), self.steps, seed)

    def run(self, kinds: Sequence[str]) -> Curriculum:
        """Return a lane per kind of labels on chosen images, and on random ones where the run has them."""
        config = self.comparison.config.student
        choices = (CHOSEN, RANDOM) if config.random_baseline else (CHOSEN,)
        lanes = []
        for images in choices:
            for kind in kinds:
                values = [self.learn(kind, images, seed) for seed in config.seeds]
                lanes.append(Lane(kind, images, sum_up_steps(values)))
        sizes = [len(group) for group in self.groups(config.seeds[0])]
        return Curriculum(tuple(sum(sizes[: step + 1]) for step in range(self.steps)), tuple(lanes))

    def learn(self, kind: str, images: str, seed: int) -> list[float]:
        """Return the accuracy after each step, in percent, of the students of one seed."""
        rate, groups = self.comparison.rate(kind), self.groups(seed)
        found: list[float] = []
        seen: tuple[int, ...] = ()
        for step, group in enumerate(groups):
            seen = (*seen, *group)
            found.append(self.student(kind, images, seed, rate, step, seen).value)
        return found

    def student(
        self, kind: str, images: str, seed: int, rate: float, step: int, seen: tuple[int, ...]
    ) -> Measurement:
        """Train and score the student of one step, or read what an earlier run of it found."""
        student = self.comparison.config.student
        config = configure_network(student, student.network)
        config = replace(config, fit=replace(config.fit, lr=rate))
        data = keep_classes(self.comparison.data(images, seed), seen)
        name = f"{CONTINUAL}/{self.steps}/{kind}-{images}-{seed}-{step}"

        def build(work: Path) -> Mapping[str, Any]:
            network = build_student(data, config, seed)
            run: Iterator[EpochState] = train_student(
                network,
                data,
                SeenLabels(self.comparison.online(kind), seen),
                config,
                seed=seed,
                device=self.pipeline.device,
                checkpoint=work / CHECKPOINT_NAME,
            )
            self.pipeline.watch(name, run, config.fit.epochs)
            test = keep_tested(self.pipeline.sources.test, seen)
            return {"accuracy": score(network.eval(), test, self.pipeline.device).to_dict()}

        settings = {
            **spell_student(config),
            "labels": kind,
            "images": images,
            "seed": seed,
            "classes": list(seen),
            "views": to_dict(data.views.config),
        }
        inputs = self.comparison.inputs(kind, images, seed)
        facts = self.pipeline.run(name, "continual-student", settings, inputs, build).facts
        return Measurement.from_dict(facts["accuracy"])


def run_continual(
    folder: str | Path,
    *,
    steps: int = 5,
    labels: Sequence[ContinualLabels] = ("generator", "hard"),
    data: str | ImageSet | None = None,
    test: ImageSet | None = None,
    device: str | None = None,
    command: str | None = None,
) -> Curriculum:
    """Learn the classes of a finished run in ``steps`` groups, and keep the result for its report.

    At each step a student is trained anew on the condensed images of all classes so far, with labels cut to
    these classes, and scored on the test images of these classes after its last epoch. Each seed of
    ``student.seeds`` has an order of its own. ``data`` is where the images are now, if not where the recipe
    says; an :class:`~aerogel.zoo.ImageSet` comes with ``test``.

    Raises:
        ConfigError: there are more steps than classes, or labels of another kind.
        DataError: there is no finished run in the folder, or its images cannot be used.
        FolderConflictError: the images are not those of the run.
    """
    place = Path(folder)
    run = open_run(place)
    arrange_classes(len(run.data.class_names), steps, 0)
    unknown = [kind for kind in labels if kind not in _KINDS]
    if unknown or not labels:
        raise ConfigError(
            compose(
                f"labels among {', '.join(_KINDS)}, which can be cut to some classes",
                ", ".join(unknown) or "none",
                "choose among these",
            )
        )
    config = run.config if device is None else replace(run.config, device=device)
    source: str | ImageSet = config.dataset if data is None else data
    if isinstance(source, str):
        config = replace(config, dataset=source)
    pipeline = Pipeline(config, open_sources(config, source, test), place, command=command)
    found = Continual(Comparison(pipeline), steps).run(labels)
    write_curriculum(place, found)
    return found
