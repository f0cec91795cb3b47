"""Turn a finished slimming into a report: what was paid, what is saved, what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aerogel.core.config import load_config, to_dict
from aerogel.core.documents import read_object
from aerogel.core.environment import environment
from aerogel.core.folders import verify_folder
from aerogel.core.manifests import Manifest, read_manifest
from aerogel.core.staging import TIMINGS
from aerogel.errors import DataError, IntegrityError, compose
from aerogel.measure import Measurement, format_bytes, format_duration
from aerogel.report import (
    Block,
    Comparison,
    Curve,
    Picture,
    Receipt,
    ReceiptLine,
    Report,
    Section,
    Series,
    TableBlock,
)
from aerogel.slim.archive import KIND, write_counts
from aerogel.slim.config import SlimConfig
from aerogel.slim.exhibits import KIND as EXHIBITS_KIND
from aerogel.slim.exhibits import SIDES
from aerogel.slim.phases import MASKS_STAGE, PHASES, list_alignings
from aerogel.slim.plan import Plan, load_plan
from aerogel.slim.run_folder import EXHIBITS, MODEL, PLAN, RECIPE, RESULT


@dataclass(frozen=True)
class Run:
    """Hold what the folder of a finished slimming says, read from disk and from nowhere else."""

    folder: Path
    config: SlimConfig
    model: Manifest
    exhibits: Manifest
    timings: Mapping[str, float]
    plan: Plan

    @property
    def before(self) -> dict[str, Any]:
        """Return what the teacher weighs."""
        found: dict[str, Any] = self.model.facts["before"]
        return found

    @property
    def after(self) -> dict[str, Any]:
        """Return what the slimmed model weighs."""
        found: dict[str, Any] = self.model.facts["after"]
        return found

    def agreement(self) -> list[dict[str, Any]]:
        """Return the rows of the comparison with the teacher's masks, and the control without a model."""
        rows = self.model.facts["agreement"].get("rows", [])
        return [row for row in rows if row["reference"] == "teacher"]

    def latency(self, side: str) -> Measurement:
        """Return the encoder's latency "before" or "after"."""
        return Measurement.from_dict(self.exhibits.facts["latency"][side])


def open_run(folder: str | Path) -> Run:
    """Read the folder of a finished slimming.

    Raises:
        DataError: there is no run in the folder, or it did not come to its end.
        IntegrityError: a file in it is damaged.
    """
    place = Path(folder)
    for name in (RESULT, RECIPE):
        if not (place / name).is_file():
            raise DataError(
                compose(
                    f"the folder of a finished slimming, with {name}",
                    f"none at {place}" if not place.is_dir() else f"{place} without it",
                    "pass the folder that `aerogel slim` wrote to, or finish it by the same command",
                )
            )
    try:
        known = {name: float(seconds) for name, seconds in read_object(place / TIMINGS).items()}
    except (ValueError, TypeError, OverflowError) as failure:
        raise IntegrityError(
            compose(f"{TIMINGS} of a slimming in {place}", str(failure), "give its command again")
        ) from failure
    return Run(
        place,
        load_config(SlimConfig, place / RECIPE),
        verify_folder(place / MODEL, KIND, allow_extra=True),
        verify_folder(place / EXHIBITS, EXHIBITS_KIND),
        known,
        load_plan(place / MODEL / PLAN),
    )


def describe_run(folder: str | Path) -> Report:
    """Describe the folder of a finished slimming as a report.

    Raises:
        DataError: there is no finished run in the folder.
        IntegrityError: a file in it is damaged.
    """
    run = open_run(folder)
    name = Path(run.config.model).name
    sections = (
        _show_masks(run),
        _show_agreement(run),
        _show_losses(run),
        _show_widths(run),
        _show_left_out(run),
    )
    return Report(
        title=f"{name}, slimmed to {_share(run, 'encoder_parameters')} of its encoder",
        lede=write_lede(run),
        receipt=describe_receipt(run),
        sections=tuple(section for section in sections if section is not None),
        config=to_dict(run.config),
        environment=environment(),
        command=run.model.command or f"aerogel slim --recipe {run.folder / RECIPE}",
    )


def describe_receipt(run: Run) -> Receipt:
    """Write the receipt: time paid, weight saved, agreement lost."""
    return Receipt(
        paid=_list_paid(run),
        saved=_list_saved(run),
        lost=_list_lost(run),
        total=_write_total(run),
        number=f"sha256 {run.model.digest[:16]}",
    )


def _share(run: Run, key: str) -> str:
    return f"{100 * run.after[key] / run.before[key]:.1f} %"


def write_lede(run: Run) -> str:
    """Write in sentences what went, and what the model learned from."""
    before, after, photos = run.before, run.after, run.model.facts["photos"]
    had, kept = str(before["heads"]), _range(run, "heads")
    fewer, same = (
        (" and", f", which keep their {had} heads")
        if had == kept
        else (f", from {had} to {kept} heads and", "")
    )
    return (
        f"The image encoder of {run.config.model} went from {before['hidden_size']} to "
        f"{after['hidden_size']} channels{fewer} from {before['mlp_dim']} to {_range(run, 'mlp')} MLP "
        f"channels in each of {before['blocks']} blocks{same}. "
        f"It learned from {photos['aligned']:,} photos; {photos['held_out']:,} more were kept back to judge "
        "it on. No label was used."
    )


def _range(run: Run, kind: str) -> str:
    """Write how many channels of a kind the blocks keep, which differs between them in the flex layout."""
    kept = [width for name, width in run.plan.widths.items() if name.endswith(f".{kind}")]
    return f"{min(kept)}" if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"


def _list_paid(run: Run) -> tuple[ReceiptLine, ...]:
    lines = []
    for phase in PHASES[run.config.method]:
        passes = _count_epochs(run.config.align_by(phase.lesson).epochs)
        for stage, label, note in (
            (phase.rotate_stage, f"rotating ({phase.cuts})", f"{run.config.rotate.photos} photos"),
            (phase.plan_stage, f"ranking ({phase.cuts})", run.config.score.criterion),
            (phase.fit_stage, "fitting by least squares", _write_fit(run, phase.fit_stage)),
            (phase.align_stage, f"aligning ({phase.lesson})", passes),
        ):
            if stage in run.timings:
                lines.append(ReceiptLine(label, format_duration(run.timings[stage]), note))
    if MASKS_STAGE in run.timings:
        taken = format_duration(run.timings[MASKS_STAGE])
        lines.append(ReceiptLine("learning masks", taken, _count_epochs(run.config.masks.epochs)))
    lines.append(ReceiptLine("in all", format_duration(sum(run.timings.values()))))
    return tuple(lines)


def _count_epochs(epochs: int) -> str:
    return f"{epochs} epoch" if epochs == 1 else f"{epochs} epochs"


def _write_fit(run: Run, stage: str) -> str:
    if not (run.folder / stage).is_dir():
        return ""
    return f"{read_manifest(run.folder / stage).facts['photos']} photos"


def _list_saved(run: Run) -> tuple[ReceiptLine, ...]:
    before, after = run.before, run.after
    lines = [
        ReceiptLine(label, f"{100 * (1 - after[key] / before[key]):.1f} %", _instead(before[key], after[key]))
        for label, key in (
            ("encoder parameters", "encoder_parameters"),
            ("linear MACs", "macs"),
            ("MACs with attention", "macs_with_attention"),
        )
    ]
    lines.append(
        ReceiptLine(
            "bytes",
            format_bytes(max(0, before["bytes"] - after["bytes"])),
            f"{format_bytes(after['bytes'])} instead of {format_bytes(before['bytes'])}, "
            f"{run.model.facts['dtype']}",
        )
    )
    old, new = run.latency("before"), run.latency("after")
    device = new.note.partition(",")[0]
    where = "one thread" if device == "cpu" else device
    lines.append(
        ReceiptLine(
            "time for an image",
            f"{old.value / new.value:.2f} times sooner",
            f"{new.value:,.1f} ms instead of {old.value:,.1f} ms, encoder, {where}",
        )
    )
    return tuple(lines)


def _instead(before: int, after: int) -> str:
    old, new = write_counts(before, after)
    return f"{new} instead of {old}"


def _list_lost(run: Run) -> tuple[ReceiptLine, ...]:
    return tuple(
        ReceiptLine(
            f"agreement, {row['title'].partition(',')[0]}",
            f"{100 * (1 - row['iou']['mean']):.1f} points",
            f"mIoU {row['iou']['mean']:.3f} with the teacher's masks, on photos that were kept back",
        )
        for row in run.agreement()
        if row["predictor"] == "model"
    )


def _write_total(run: Run) -> str:
    return (
        f"{_share(run, 'encoder_parameters')} of the encoder's parameters, {_share(run, 'macs')} of its "
        f"linear work and {_share(run, 'macs_with_attention')} of all its work are left"
    )


def _show_masks(run: Run) -> Section | None:
    place = run.folder / EXHIBITS
    pairs = [
        tuple(
            Picture((place / each[side]).read_bytes(), each["photo"] if side == "before" else "")
            for side in SIDES
        )
        for each in run.exhibits.facts["pictures"]
    ]
    if not pairs:
        return None
    block = Comparison([(one, other) for one, other in pairs], ("the teacher", "slimmed"))
    text = "One mask for each point. Neither ranking nor aligning saw these photos."
    return Section("Masks before and after", text, (block,))


def _show_agreement(run: Run) -> Section | None:
    rows = [
        (
            row["title"],
            f"{row['iou']['mean']:.3f}",
            _write_interval(row["iou"].get("by_object")),
            f"{row['boundary_iou']['mean']:.3f}" if "boundary_iou" in row else "",
        )
        for row in run.agreement()
    ]
    if not rows:
        return None
    facts = run.model.facts["agreement"]
    text = (
        f"{facts['object_count']} masks of {facts['image_count']} photos that were kept back. The filled box "
        "is what a box prompt gives away without a model."
    )
    header = ("prompt", "mIoU", "95 % interval", "boundary IoU")
    return Section("Agreement with the teacher", text, (TableBlock(header, rows),))


def _write_interval(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['low']:.3f} to {found['high']:.3f}"


def _show_losses(run: Run) -> Section | None:
    blocks: list[Block] = []
    for stage, lesson in list_alignings(run.config):
        states = read_manifest(run.folder / stage).facts["losses"]
        names = sorted({name for means in states for name in means} - {"loss"})
        series = [
            Series(
                name.replace("_", " "),
                [epoch + 1 for epoch, means in enumerate(states) if name in means],
                [means[name] for means in states if name in means],
            )
            for name in names
        ]
        blocks.append(Curve(f"Aligning by the {lesson}", "epoch", "loss", series, log_y=True))
    return Section("Losses", "Means over each epoch, before their weights.", blocks)


def _show_widths(run: Run) -> Section:
    widths = run.plan.widths
    rows = [
        (
            str(index),
            f"{widths[f'blocks.{index}.heads']} of {run.plan.sizes[f'blocks.{index}.heads']}",
            f"{widths[f'blocks.{index}.head_dims']} of {run.plan.sizes[f'blocks.{index}.head_dims']}",
            f"{widths[f'blocks.{index}.mlp']} of {run.plan.sizes[f'blocks.{index}.mlp']}",
        )
        for index in range(run.before["blocks"])
    ]
    text = f"{widths['embedding']} of {run.plan.sizes['embedding']} channels of the residual stream stay."
    header = ("block", "heads", "dimensions of a head", "MLP channels")
    return Section("What stays", text, (TableBlock(header, rows),))


def _show_left_out(run: Run) -> Section | None:
    photos = run.model.facts["photos"]
    if not photos["left_out_count"]:
        return None
    rows = [(each["photo"], each["reason"]) for each in photos["left_out"]]
    text = f"{photos['left_out_count']:,} files among the photos could not be used."
    return Section("Photos left out", text, (TableBlock(("file", "why"), rows),))
