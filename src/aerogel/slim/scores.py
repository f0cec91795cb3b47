"""Hold what an evaluation found for each object, with intervals, and compare two models by pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from aerogel.errors import DataError, MismatchError, compose
from aerogel.measure.bootstrap import (
    Interval,
    Weight,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
)
from aerogel.measure.results import Measurement, Table

Predictor = Literal["model", "filled box"]
Reference = Literal["truth", "teacher"]
Metric = Literal["iou", "boundary_iou"]
PROMPT_NAMES = {"point": "one point", "centre": "centre point", "stored": "stored point", "box": "box"}
METRIC_NAMES: dict[Metric, str] = {"iou": "mIoU", "boundary_iou": "boundary IoU"}


@dataclass(frozen=True)
class Scores:
    """The scores of one kind of prompt: one number for each object, in the order of the evaluation's objects.

    The predictor is the "model", or the "filled box", a control that needs no model. The masks were compared
    with the data set's ("truth") or with those of a "teacher" for the same prompts.
    """

    predictor: Predictor
    prompt: str
    reference: Reference
    iou: tuple[float, ...]
    boundary_iou: tuple[float, ...] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Predictor, prompt and reference: what tells this row from the others."""
        return (self.predictor, self.prompt, self.reference)

    @property
    def title(self) -> str:
        """The row's name for people, such as "one point" or "box, against the teacher"."""
        shown = PROMPT_NAMES.get(self.prompt, self.prompt)
        name = shown if self.predictor == "model" else "filled box (no model)"
        return name if self.reference == "truth" else f"{name}, against the teacher"

    def values(self, metric: Metric) -> tuple[float, ...] | None:
        """Return the scores of a metric; None where it was not measured."""
        return self.iou if metric == "iou" else self.boundary_iou


@dataclass(frozen=True)
class Evaluation:
    """What one model scored on N objects: the ids of each object's image and of the object, and the rows.

    ``seed`` is that of the prompts, ``points`` how many random ones each object was asked about: two
    evaluations compare only where all of these agree.
    """

    model: str
    images: tuple[str, ...]
    objects: tuple[str, ...]
    rows: tuple[Scores, ...]
    seed: int = 0
    points: int = 1

    def row(self, prompt: str, reference: Reference = "truth", predictor: Predictor = "model") -> Scores:
        """Return one row.

        Raises:
            DataError: it was not measured.
        """
        for each in self.rows:
            if each.key == (predictor, prompt, reference):
                return each
        known = "; ".join(each.title for each in self.rows)
        raise DataError(
            compose(f"scores of {predictor}, {prompt}, {reference}", known, "evaluate it, or name another")
        )

    def interval(self, scores: Scores, metric: Metric = "iou", weight: Weight = "value") -> Interval:
        """Estimate the mean score of a row with its 95 % interval, whole images drawn again.

        ``weight`` "value" is the mean over objects, "group" the mean over images of the image's mean, as the
        published protocol has it.

        Raises:
            DataError: fewer than two images, or a metric that was not measured.
        """
        return bootstrap_mean(_require(scores, metric), self.images, weight=weight)

    def table(self) -> Table:
        """Return the mean scores over objects with their intervals, as a table for people."""
        found = []
        for scores in self.rows:
            for metric, name in METRIC_NAMES.items():
                values = scores.values(metric)
                if values is not None:
                    found.append(self._sum_up(scores, metric, values, f"{name}, {scores.title}"))
        title = f"{self.model}: {len(self.objects):,} objects of {len(set(self.images)):,} images"
        return Table(title, tuple(found))

    def to_dict(self, *, per_object: bool = True) -> dict[str, Any]:
        """Return plain JSON values: means, intervals and, for comparisons later on, every object's scores."""
        data: dict[str, Any] = {
            "model": self.model,
            "seed": self.seed,
            "points": self.points,
            "image_count": len(set(self.images)),
            "object_count": len(self.objects),
            "rows": [self._row_to_dict(scores, per_object) for scores in self.rows],
        }
        if per_object:
            data |= {"images": list(self.images), "objects": list(self.objects)}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Build an evaluation from what `to_dict` returned with every object's scores.

        Raises:
            DataError: something is missing or does not fit.
        """
        try:
            rows = tuple(
                Scores(
                    each["predictor"],
                    each["prompt"],
                    each["reference"],
                    tuple(map(float, each["scores"]["iou"])),
                    tuple(map(float, each["scores"]["boundary_iou"]))
                    if each["scores"].get("boundary_iou") is not None
                    else None,
                )
                for each in data["rows"]
            )
            images, objects = tuple(data["images"]), tuple(data["objects"])
            # Files from before several points could be asked hold scores of one.
            found = cls(data["model"], images, objects, rows, data["seed"], int(data.get("points", 1)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
            remedy = "pass what to_dict(per_object=True) returned"
            raise DataError(compose("the fields of an evaluation", got, remedy)) from error
        counts = {len(found.images), len(found.objects)}
        for each in rows:
            counts |= {len(each.iou), len(each.boundary_iou or each.iou)}
        if len(counts) != 1:
            got = f"lists of {', '.join(map(str, sorted(counts)))}"
            raise DataError(compose("a score for each object", got, "evaluate again"))
        return found

    def _sum_up(self, scores: Scores, metric: Metric, values: tuple[float, ...], name: str) -> Measurement:
        if len(set(self.images)) < 2:
            note = "one image: no interval"
            return Measurement(name, 100 * fmean(values), "%", samples=len(values), note=note)
        return self.interval(scores, metric).to_measurement(name)

    def _row_to_dict(self, scores: Scores, per_object: bool) -> dict[str, Any]:
        row: dict[str, Any] = dict(
            zip(("predictor", "prompt", "reference"), scores.key, strict=True), title=scores.title
        )
        for metric in METRIC_NAMES:
            values = scores.values(metric)
            if values is None:
                continue
            row[metric] = {"mean": fmean(values)}
            if len(set(self.images)) > 1:
                row[metric]["by_object"] = self.interval(scores, metric).to_dict()
                row[metric]["by_image"] = self.interval(scores, metric, "group").to_dict()
        if per_object:
            row["scores"] = {metric: _listed(scores.values(metric)) for metric in METRIC_NAMES}
        return row


@dataclass(frozen=True)
class Contrast:
    """One row of a comparison: the difference of two means over the same objects, and their ratio."""

    title: str
    metric: Metric
    difference: Interval
    kept: Interval | None


@dataclass(frozen=True)
class Comparison:
    """How a model's scores differ from a reference model's, by pairs."""

    model: str
    reference: str
    rows: tuple[Contrast, ...]

    def table(self) -> Table:
        """Return differences and kept shares with their intervals, as a table for people."""
        found = []
        for row in self.rows:
            name = f"{METRIC_NAMES[row.metric]}, {row.title}"
            found.append(row.difference.to_measurement(f"difference in {name}"))
            if row.kept is not None:
                found.append(row.kept.to_measurement(f"kept of {name}"))
        return Table(f"{self.model} against {self.reference}, paired", tuple(found))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [
            {
                "title": row.title,
                "metric": row.metric,
                "difference": row.difference.to_dict(),
                "excludes_zero": row.difference.excludes_zero,
                "kept": None if row.kept is None else row.kept.to_dict(),
            }
            for row in self.rows
        ]
        return {"model": self.model, "reference": self.reference, "rows": rows}


def compare(ours: Evaluation, theirs: Evaluation, *, weight: Weight = "value") -> Comparison:
    """Compare two models on the same objects and prompts, by a paired bootstrap over images.

    Rows that only one of them has are left out. The kept share is left out where the reference scores
    zero on too many images for a ratio.

    Raises:
        MismatchError: other objects, another seed or number of points, or no row in common.
        DataError: fewer than two images.
    """
    asked = {(each.images, each.objects, each.seed, each.points) for each in (ours, theirs)}
    if len(asked) > 1:
        got = f"{len(ours.objects):,} and {len(theirs.objects):,}, not all the same, or other seeds or points"
        raise MismatchError(
            compose("evaluations of the same objects and prompts", got, "evaluate both on the same photos")
        )
    others = {each.key: each for each in theirs.rows}
    found = []
    for row in ours.rows:
        other = others.get(row.key)
        if other is None or row.predictor != "model":
            continue
        for metric in METRIC_NAMES:
            first, second = row.values(metric), other.values(metric)
            if first is None or second is None:
                continue
            difference = bootstrap_difference(first, second, ours.images, weight=weight)
            kept = _keep(first, second, ours.images, weight)
            found.append(Contrast(row.title, metric, difference, kept))
    if not found:
        rows = "; ".join(each.title for each in theirs.rows) or "none"
        raise MismatchError(compose("a row in common", rows, "evaluate both with the same prompts"))
    return Comparison(ours.model, theirs.model, tuple(found))


def _keep(
    first: tuple[float, ...], second: tuple[float, ...], images: tuple[str, ...], weight: Weight
) -> Interval | None:
    """Estimate the kept share; None where the reference scores zero in some draw."""
    try:
        return bootstrap_ratio(first, second, images, weight=weight)
    except DataError:
        return None


def _require(scores: Scores, metric: Metric) -> tuple[float, ...]:
    values = scores.values(metric)
    if values is None:
        raise DataError(
            compose(f"{METRIC_NAMES[metric]} of {scores.title}", "none", "evaluate with boundary=True")
        )
    return values


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
