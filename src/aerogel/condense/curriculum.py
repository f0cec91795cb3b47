"""Classes that arrive in groups: their order, what students made of them, and how that is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aerogel.condense.standing import write_percent
from aerogel.core.canonical import show_value
from aerogel.core.documents import read_object
from aerogel.core.folders import write_text_atomic
from aerogel.core.randomness import permutation
from aerogel.errors import ConfigError, DataError, IntegrityError, compose
from aerogel.measure import Measurement, mean_std
from aerogel.report import Curve, Section, Series, TableBlock

if TYPE_CHECKING:
    from aerogel.condense.account import Run

CONTINUAL = "continual"
_LONGEST = 300


@dataclass(frozen=True)
class Lane:
    """Hold one kind of labels on one choice of images, and the accuracy after each step, in percent."""

    labels: str
    images: str
    accuracies: tuple[Measurement, ...]

    @property
    def mean(self) -> Measurement:
        """Return the mean over the steps, the average incremental accuracy; it has no spread."""
        return Measurement("mean accuracy", float(np.mean([a.value for a in self.accuracies])), "%")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**vars(self), "accuracies": [each.to_dict() for each in self.accuracies]}


@dataclass(frozen=True)
class Curriculum:
    """Hold a class-incremental run: how many classes had come at each step, and the lanes."""

    classes: tuple[int, ...]
    lanes: tuple[Lane, ...]

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {"classes": list(self.classes), "lanes": [lane.to_dict() for lane in self.lanes]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curriculum:
        """Build what :meth:`to_dict` returned.

        Raises:
            DataError: it is something else.
        """
        try:
            classes = tuple(data["classes"])
            lanes = tuple(
                Lane(
                    lane["labels"],
                    lane["images"],
                    tuple(Measurement.from_dict(each) for each in lane["accuracies"]),
                )
                for lane in data["lanes"]
            )
        except (LookupError, TypeError, AttributeError) as failure:
            got = repr(failure)[:_LONGEST]
            raise DataError(compose("classes and lanes", got, "run it again")) from failure
        texts = all(isinstance(text, str) for lane in lanes for text in (lane.labels, lane.images))
        rising = [0, *classes] if all(type(count) is int for count in classes) else []
        if (
            not texts
            or len(rising) < 2
            or any(one >= two for one, two in pairwise(rising))
            or any(len(lane.accuracies) != len(classes) for lane in lanes)
        ):
            got = show_value(dict(data))
            raise DataError(
                compose("rising numbers of classes and as many accuracies in every lane", got, "run it again")
            )
        return cls(classes, lanes)


def arrange_classes(classes: int, steps: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Shuffle the numbers of the classes and deal them into ``steps`` groups, the larger ones first.

    Raises:
        ConfigError: there are fewer than two steps, or more than classes.
    """
    if not 2 <= steps <= classes:
        raise ConfigError(
            compose(f"from 2 to {classes} steps, the number of classes", f"{steps}", "choose another number")
        )
    groups = np.array_split(permutation(seed, "continual", 0, classes), steps)
    return tuple(tuple(int(label) for label in group) for group in groups)


def sum_up_steps(values: Sequence[Sequence[float]]) -> tuple[Measurement, ...]:
    """Sum up the accuracies of several seeds, each a value per step."""
    return tuple(mean_std(step, name="accuracy", unit="%") for step in zip(*values, strict=True))


def write_curriculum(folder: Path, found: Curriculum) -> None:
    """Write the result into the folder of a run, where its report looks for it."""
    text = json.dumps(found.to_dict(), indent=2, sort_keys=True)
    write_text_atomic(folder / CONTINUAL / f"{found.steps}.json", text + "\n")


def read_curricula(folder: Path) -> tuple[Curriculum, ...]:
    """Read all class-incremental results in the folder of a run, the one with the fewest steps first.

    Raises:
        IntegrityError: one of them is damaged.
    """
    found = []
    for path in (folder / CONTINUAL).glob("*.json"):
        try:
            found.append(Curriculum.from_dict(read_object(path)))
        except ValueError as failure:
            raise IntegrityError(
                compose(f"the result of a class-incremental run in {path}", str(failure), "run it again")
            ) from failure
    return tuple(sorted(found, key=lambda each: each.steps))


def describe_curricula(run: Run, name: Callable[[str], str]) -> list[Section]:
    """Return the section of the class-incremental results, if there are any."""
    if not run.curricula:
        return []
    seeds = len(run.config.student.seeds)
    blocks: list[Curve | TableBlock] = []
    for each in run.curricula:
        lanes = [(name_lane(lane, name), lane) for lane in each.lanes]
        series = [
            Series(
                title,
                each.classes,
                [a.value for a in lane.accuracies],
                [a.spread or 0.0 for a in lane.accuracies] if seeds > 1 else None,
            )
            for title, lane in lanes
        ]
        blocks.append(
            Curve(
                f"Classes arriving in {each.steps} steps",
                "classes seen",
                "accuracy on test images of these classes",
                series,
                y_unit="%",
            )
        )
        rows = [
            (title, write_percent(lane.accuracies[-1]), f"{lane.mean.value:.1f}") for title, lane in lanes
        ]
        blocks.append(TableBlock(("labels", "after the last step (%)", "mean over the steps (%)"), rows))
    text = (
        "Classes arrive in groups, in an order drawn for each seed. At each step a new student learns from "
        "the condensed images of all classes so far, with labels cut to these classes, and is scored on test "
        f"images of these classes after its last epoch. {_tell_seeds(seeds)}"
    )
    return [Section("Learning classes step by step", text, blocks)]


def name_lane(lane: Lane, name: Callable[[str], str]) -> str:
    """Name the labels and images of a lane; ``name`` names a kind of labels."""
    return f"{'random images, ' if lane.images == 'random' else ''}{name(lane.labels)}"


def _tell_seeds(seeds: int) -> str:
    return "One seed." if seeds == 1 else f"Mean over {seeds} seeds; bands are one standard deviation."
