"""Turn a finished condensation into a report: what was paid, what is saved, what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from aerogel.condense.archive import RESIDUAL
from aerogel.condense.comparison import Row
from aerogel.condense.condensed import CondensedSet, load_condensed
from aerogel.condense.config import CondenseConfig
from aerogel.condense.curriculum import CONTINUAL, Curriculum, read_curricula
from aerogel.condense.exhibits import describe_sections
from aerogel.condense.lineup import AUGMENTED
from aerogel.condense.run_folder import RECIPE, RESULT
from aerogel.condense.teacher import load_teacher
from aerogel.core.config import load_config, to_dict
from aerogel.core.documents import read_object
from aerogel.core.environment import environment
from aerogel.core.staging import TIMINGS
from aerogel.errors import DataError, IntegrityError, compose
from aerogel.measure import Measurement, format_bytes, format_duration
from aerogel.report import Receipt, ReceiptLine, Report

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

_STAGES = {
    "teacher": "teacher",
    "selection": "choosing the images",
    "refined": "updating the images",
    "generator": "label generator",
    "residual": "what it leaves out",
    "archive": "packing",
}


@dataclass(frozen=True)
class Run:
    """Hold what the folder of a finished run says, read from disk and from nowhere else."""

    folder: Path
    config: CondenseConfig
    rows: tuple[Row, ...]
    timings: Mapping[str, float]
    data: CondensedSet
    curricula: tuple[Curriculum, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """Return the facts in the condensed set's manifest."""
        return self.data.manifest.facts

    @property
    def residual(self) -> dict[str, Any]:
        """Return the facts of the stored residuals, empty in a set without."""
        return dict(self.facts.get(RESIDUAL, {}))

    @property
    def teacher_accuracy(self) -> Measurement:
        """Return the teacher's accuracy on the test images."""
        return Measurement.from_dict(self.facts["teacher"]["test_accuracy"])

    @cached_property
    def teacher_bytes(self) -> int:
        """Return what the teacher itself would weigh in float16: the alternative to any store of labels."""
        weights = load_teacher(self.folder / "teacher").classifier.state_dict()
        halves = {
            key: value.half() if value.is_floating_point() else value.clone()
            for key, value in weights.items()
        }
        return len(save(halves))

    @property
    def storage(self) -> dict[str, int]:
        """Return bytes by name, as measured when the set was packed."""
        return {each["name"]: int(each["bytes"]) for each in self.facts["storage"]}

    @property
    def delta_bytes(self) -> int:
        """Return what the label generator adds to its public backbone."""
        return self.storage["label generator (delta)"]

    @property
    def set_bytes(self) -> int:
        """Return images and label generator together."""
        return self.storage["images"] + self.delta_bytes

    @property
    def source_bytes(self) -> int:
        """Return the bytes of the source's pixels, one byte each, uncompressed."""
        return int(self.facts["source"]["images"] * self.facts["channels"] * self.facts["size"] ** 2)

    @property
    def main_rows(self) -> tuple[Row, ...]:
        """Return the rows of the run's own network, trained on augmented views."""
        own = ("", self.config.student.network)
        return tuple(row for row in self.rows if row.network in own and row.views == AUGMENTED)

    def find(self, labels: str, images: str = "chosen") -> Row | None:
        """Return the main row of one kind of labels, if students were trained with it."""
        return next((row for row in self.main_rows if (row.labels, row.images) == (labels, images)), None)

    @property
    def view_bytes(self) -> float:
        """Return the bytes of a view's stored label: measured where labels were stored, else two a class."""
        row = self.find("stored-fp16")
        if row is None:
            return 2.0 * len(self.facts["class_names"])
        return row.label_bytes / (self.config.student.fit.epochs * int(self.facts["images"]))

    @property
    def even_views(self) -> float:
        """Return the number of stored views whose labels weigh what the label generator weighs."""
        return self.delta_bytes / self.view_bytes

    @property
    def even_epochs(self) -> float:
        """Return ``even_views`` in passes over the condensed images."""
        return self.even_views / float(self.facts["images"])


def open_run(folder: str | Path) -> Run:
    """Read the folder of a finished run.

    Raises:
        DataError: there is no run in the folder, or it did not come to its end.
        IntegrityError: a file in it is damaged.
    """
    place = Path(folder)
    for name in (RESULT, RECIPE):
        if not (place / name).is_file():
            raise DataError(
                compose(
                    f"the folder of a finished run, with {name}",
                    f"none at {place}" if not place.is_dir() else f"{place} without it",
                    "pass the folder that `aerogel condense` wrote to, or finish it by the same command",
                )
            )
    try:
        rows = tuple(Row.from_dict(row) for row in read_object(place / RESULT)["rows"])
        known = {name: float(seconds) for name, seconds in read_object(place / TIMINGS).items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as failure:
        raise IntegrityError(
            compose(f"{RESULT} and {TIMINGS} of a run in {place}", str(failure), "give its command again")
        ) from failure
    config = load_config(CondenseConfig, place / RECIPE)
    return Run(place, config, rows, known, load_condensed(place / "archive"), read_curricula(place))


def describe(run: Condensed | Run | str | Path) -> Report:
    """Describe a finished condensation, or the folder of one, as a report.

    Raises:
        DataError: there is no finished run in the folder.
        IntegrityError: a file in it is damaged.
    """
    if not isinstance(run, Run):
        run = open_run(run if isinstance(run, str | Path) else run.folder)
    facts = run.facts
    return Report(
        title=f"{facts['source']['name']}: {facts['source']['images']:,} images become {facts['images']:,}",
        lede=_write_lede(run),
        receipt=describe_receipt(run),
        sections=describe_sections(run),
        config=to_dict(run.config),
        environment={**environment(), **_recorded_versions(run)},
        command=run.data.manifest.command or f"aerogel condense --recipe {run.folder / 'recipe.yaml'}",
    )


def describe_receipt(run: Run) -> Receipt:
    """Write the receipt: time paid, bytes saved, points of accuracy lost."""
    return Receipt(
        paid=_list_paid(run),
        saved=_list_saved(run),
        lost=_list_lost(run),
        total=_write_total(run),
        number=f"sha256 {run.data.manifest.digest[:16]}",
    )


def _recorded_versions(run: Run) -> dict[str, str]:
    versions = run.data.manifest.versions
    return {name: version for name, version in versions.items() if name != "python"}


def _write_lede(run: Run) -> str:
    facts, ours = run.facts, run.find("generator")
    source = facts["source"]
    text = (
        f"{source['images']:,} images of {len(facts['class_names'])} classes became {facts['images']:,} "
        f"({format_bytes(run.storage['images'])}) and a generator of their soft labels "
        f"({format_bytes(run.delta_bytes)} beside a public backbone)."
    )
    if ours is None:
        return text
    return (
        f"{text} A student that saw nothing else gets {ours.accuracy.value:.1f} % of the test images right; "
        f"the teacher, trained on all images, {run.teacher_accuracy.value:.1f} %."
    )


def _list_paid(run: Run) -> tuple[ReceiptLine, ...]:
    config, facts = run.config, run.facts
    projector = facts["projector"]
    origin = f"{config.teacher.fit.epochs} epochs" if config.teacher.path is None else "imported"
    notes = {
        "teacher": f"{origin}, {write_accuracy(run.teacher_accuracy)} on test images",
        "selection": f"{facts['images']:,} of {facts['source']['images']:,}",
        "refined": f"{config.refine.steps} steps on their pixels",
        "generator": f"{projector['trained_parameters']:,} parameters, rank {projector['rank']}, "
        f"{config.projector.fit.epochs} epochs on {facts['backbone']['name']}",
        "archive": "images, adapter, manifest",
    }
    if run.residual:
        notes["residual"] = f"{run.residual['codec']}, views of {run.residual['epochs']} epochs"
    lines = [
        ReceiptLine(label, format_duration(run.timings[name]), notes[name])
        for name, label in _STAGES.items()
        if name in run.timings
    ]
    made = sum(run.timings.get(name, 0.0) for name in _STAGES)
    lines.append(ReceiptLine("in all", format_duration(made)))
    later = sum(seconds for name, seconds in run.timings.items() if name.startswith(f"{CONTINUAL}/"))
    rest = sum(run.timings.values()) - made - later
    if run.rows:
        count = len(config.student.seeds) * len(run.rows)
        lines.append(
            ReceiptLine("the comparison", format_duration(rest), f"{count} students, only to measure")
        )
    return tuple(lines)


def _list_saved(run: Run) -> tuple[ReceiptLine, ...]:
    kept, whole = run.facts["images"], run.facts["source"]["images"]
    images = run.storage["images"]
    lines = [
        ReceiptLine("images", f"{100 * (1 - kept / whole):.1f} %", f"{kept:,} instead of {whole:,}"),
        _saving("image bytes", images, run.source_bytes, "compressed", "of uncompressed pixels"),
    ]
    stored = run.find("stored-fp16")
    if stored is not None:
        epochs = run.config.student.fit.epochs
        lines.append(
            _saving(
                "label bytes",
                run.delta_bytes,
                stored.label_bytes,
                "of generator",
                f"stored for {epochs} epochs",
            )
        )
    lines.append(
        _saving(
            "against the teacher",
            run.delta_bytes,
            run.teacher_bytes,
            "of generator",
            "for the teacher itself in fp16",
        )
    )
    lines.append(
        ReceiptLine(
            "break-even",
            f"{run.even_epochs:.3g} epochs",
            f"{run.even_views:,.0f} stored labels weigh what the generator weighs, {_tell_reach(run)}",
        )
    )
    return tuple(lines)


def _tell_reach(run: Run) -> str:
    if not run.residual:
        return "however many it makes"
    return f"with residuals for {run.residual['epochs'] * int(run.facts['images']):,}"


def _saving(label: str, ours: int, theirs: int, how: str, instead: str) -> ReceiptLine:
    note = f"{format_bytes(ours)} {how} instead of {format_bytes(theirs)} {instead}"
    if ours >= theirs:
        return ReceiptLine(label, "nothing", note)
    return ReceiptLine(label, format_bytes(theirs - ours), note)


def _list_lost(run: Run) -> tuple[ReceiptLine, ...]:
    ours = run.find("generator")
    lines = []
    if ours is not None:
        against = (
            ("to all labels stored", run.find("stored-fp16") or run.find("stored-fp32")),
            ("to random images", run.find("stored-fp16", "random")),
        )
        lines = [_loss(label, ours.accuracy, row.accuracy) for label, row in against if row is not None]
        lines.append(_loss("to the teacher", ours.accuracy, run.teacher_accuracy))
    seen = run.facts["projector"]["fidelity"][0]
    lines.append(
        ReceiptLine(
            "labels that differ",
            f"{100 * (1 - seen['agreement']):.1f} %",
            f"from the teacher's first choice, on {seen['samples']:,} held-out views",
        )
    )
    return (*lines, *_list_codec_loss(run), *_list_residual_loss(run))


def _list_residual_loss(run: Run) -> tuple[ReceiptLine, ...]:
    """Say what is still lost where residuals are stored."""
    if not run.residual:
        return ()
    seen = run.residual["fidelity"][0]
    note = f"from the teacher's first choice, on {seen['samples']:,} views with stored residuals"
    return (ReceiptLine("with residuals", f"{100 * (1 - seen['agreement']):.1f} %", note),)


def _list_codec_loss(run: Run) -> tuple[ReceiptLine, ...]:
    """Say what the adapter's number format changed, in a set that was packed with it measured."""
    facts = run.facts["projector"]
    if "codec_fidelity" not in facts:
        return ()
    each = facts["codec_fidelity"][-1]
    changed = 100 * (1 - each["agreement"])
    note = f"first choice of the adapter in {facts['codec']} and as trained, {each['samples']:,} views"
    return (ReceiptLine("to the adapter's codec", f"{changed:.2f} %" if changed > 0 else "nothing", note),)


def _loss(label: str, ours: Measurement, theirs: Measurement) -> ReceiptLine:
    points = round(theirs.value - ours.value, 1)
    note = f"{write_accuracy(ours)} against {write_accuracy(theirs)}"
    if points <= 0:
        return ReceiptLine(label, "nothing", note)
    return ReceiptLine(label, f"{points:.1f} points", note)


def write_accuracy(measured: Measurement) -> str:
    """Write an accuracy with one decimal and its spread: "75.8 ± 4.4 %"."""
    spread = "" if measured.spread is None else f" ± {measured.spread:.1f}"
    return f"{measured.value:.1f}{spread} %"


def _write_total(run: Run) -> str:
    size, ours = format_bytes(run.set_bytes), run.find("generator")
    if ours is None:
        return f"{run.facts['images']:,} images and their labels in {size}"
    share = ours.accuracy.value / run.teacher_accuracy.value
    public = format_bytes(ours.backbone_bytes)
    total = f"{share:.0%} of the teacher's accuracy from {size}, beside a public backbone of {public}"
    return total.replace("%", " %", 1)
