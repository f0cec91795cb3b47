"""The sections of a condensation's report: images, accuracy against bytes, storage, fidelity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aerogel.condense.codecs.naming import PREFIX, parse_codec
from aerogel.condense.curriculum import describe_curricula
from aerogel.condense.standing import describe_students
from aerogel.measure import format_bytes
from aerogel.report import Block, Curve, Level, Picture, Pictures, Point, Scatter, Section, Series, TableBlock

if TYPE_CHECKING:
    from aerogel.condense.account import Run
    from aerogel.condense.comparison import Row

NAMES = {
    "generator": "label generator",
    "teacher": "the teacher itself, fp16",
    "stored-fp32": "all labels stored, fp32",
    "stored-fp16": "all labels stored, fp16",
    "one-per-image": "one soft label per image",
    "hard": "hard labels",
}
# On the chart, where long names crowd each other out.
_SHORT = {
    "generator": "label generator",
    "teacher": "teacher, fp16",
    "stored-fp32": "stored, fp32",
    "stored-fp16": "stored, fp16",
    "one-per-image": "one per image",
    "hard": "hard labels",
}
_PER_CLASS = 10
_MOST_PICTURES = 200
_EPOCHS = (1, 3, 10, 30, 100, 300, 1000)


def describe_sections(run: Run) -> tuple[Section, ...]:
    """Return the sections of the report, without those that the run has no figures for."""
    sections = [_show_images(run)]
    if run.rows:
        sections += [_show_accuracy(run), *describe_students(run, name_labels)]
    sections += describe_curricula(run, name_labels)
    return (*sections, _show_storage(run), _show_fidelity(run))


def name_row(row: Row) -> str:
    """Name one kind of labels on one choice of images."""
    images = {"chosen": "", "random": "random images, ", "all": "all real images, "}[row.images]
    return f"{images}{name_labels(row.labels)}{', not augmented' if row.views == 'plain' else ''}"


def name_labels(kind: str) -> str:
    """Name one kind of labels, also one that a codec stores."""
    return NAMES[kind] if kind in NAMES else parse_codec(kind).title


def _shorten(kind: str) -> str:
    return _SHORT[kind] if kind in _SHORT else parse_codec(kind).short


_CROPPED = (
    "Of several random crops, the one that the teacher recognises with the least loss stands for its image. "
)
_HOW = {
    "confident": _CROPPED + "The images recognised best were kept.",
    "representative": _CROPPED
    + "Of each group that looks alike to the teacher, the image recognised best was kept.",
    "random": "They were drawn by chance.",
}


def _show_images(run: Run) -> Section:
    data, facts = run.data, run.facts
    names = data.class_names
    per_class = min(int(facts["ipc"]), _PER_CLASS)
    classes = range(min(len(names), max(1, _MOST_PICTURES // per_class)))
    pixels = np.asarray(data.images.permute(0, 2, 3, 1))
    labels = np.asarray(data.class_labels)
    pictures = [
        Picture(
            pixels[index, ..., 0] if pixels.shape[-1] == 1 else pixels[index],
            names[label],
            f"{names[label]}, image {number + 1}",
        )
        for label in classes
        for number, index in enumerate(np.flatnonzero(labels == label)[:per_class].tolist())
    ]
    how = _HOW[run.config.selection.order]
    tiles = int(facts["tiles"])
    mosaic = f" Each is a mosaic of {tiles} × {tiles} such crops." if tiles > 1 else ""
    mosaic += _tell_update(facts)
    left = len(labels) - len(pictures)
    more = f"\n\n{left:,} more are in the set." if left else ""
    return Section(
        "The images",
        f"{len(labels):,} images of {facts['size']} × {facts['size']} pixels, {facts['ipc']} per class, "
        f"stand for {facts['source']['images']:,}. {how}{mosaic}{more}",
        [Pictures(pictures, columns=per_class if per_class > 1 else 10, pixelated=int(facts["size"]) < 64)],
    )


def _tell_update(facts: dict[str, Any]) -> str:
    if "refined" not in facts:
        return ""
    before, after = facts["refined"]["gap_before"], facts["refined"]["gap_after"]
    return (
        f" Their pixels were then moved in {facts['refined']['steps']} steps, so that the backbone sees in "
        "the shrunk crops what it saw in the whole ones: the mean squared difference of its features fell "
        f"from {before:.3g} to {after:.3g}."
    )


def _show_accuracy(run: Run) -> Section:
    epochs, seeds = run.config.student.fit.epochs, len(run.config.student.seeds)
    spread = (
        f"Bars are one standard deviation over {seeds} seeds."
        if seeds > 1
        else "One seed; bars are the 95 % interval that the number of test images allows."
    )
    points = [
        Point(
            _shorten(row.labels) if row.images == "chosen" else f"{_shorten(row.labels)}, random",
            row.label_bytes,
            row.accuracy.value,
            row.accuracy.spread,
            group="chosen images" if row.images == "chosen" else "random images",
            emphasis=row.labels == "generator",
        )
        for row in run.main_rows
        if row.images != "all"
    ]
    ours = run.find("generator")
    if ours is not None:
        total = ours.label_bytes + ours.backbone_bytes
        point = Point("with backbone", total, ours.accuracy.value, ours.accuracy.spread)
        points.append(point)
    scatter = Scatter(
        "Accuracy against the bytes of the labels",
        "labels on disk",
        "accuracy on test images",
        points,
        x_unit="B",
        y_unit="%",
        levels=_draw_levels(run),
        text=f"Further left is lighter, further up is better. {spread}",
    )
    rows = [
        (
            name_labels(row.labels),
            row.images,
            row.label_bytes,
            row.backbone_bytes or None,
            _write_spread(row.accuracy.value, row.accuracy.spread),
            f"{row.rate:g}",
        )
        for row in run.main_rows
    ]
    table = TableBlock(
        ("labels", "images", "label bytes", "backbone bytes", "accuracy (%)", "learning rate"),
        rows,
        title="The same in numbers",
        text="The backbone is public: whoever has it already fetches the label bytes alone.",
        highlight=[n for n, row in enumerate(run.main_rows) if row.labels == "generator"],
    )
    text = (
        f"The same student, trained for {epochs} epochs on {run.facts['images']:,} images with labels of "
        "each kind, scored after its last epoch on test images that nothing else has seen."
    )
    return Section("Accuracy against bytes", text, [scatter, table])


def _draw_levels(run: Run) -> tuple[Level, ...]:
    teacher = Level(f"teacher, all {run.facts['source']['images']:,} images", run.teacher_accuracy.value)
    whole = run.find("hard", "all")
    if whole is None:
        return (teacher,)
    return (teacher, Level("the student on all real images", whole.accuracy.value))


def _write_spread(value: float, spread: float | None) -> str:
    return f"{value:.1f}" if spread is None else f"{value:.1f} ± {spread:.1f}"


def _show_storage(run: Run) -> Section:
    delta, epochs = run.delta_bytes, run.config.student.fit.epochs
    backbone = run.facts["backbone"]
    entries = [
        ("images", run.storage["images"], "PNG in parquet"),
        ("label generator", delta, f"the change to {backbone['name']}{_tell_residual(run)}"),
        (
            "label generator with its backbone",
            delta + int(backbone["bytes"]),
            "if the backbone has to be fetched",
        ),
        ("the teacher itself, fp16", run.teacher_bytes, "ship the teacher instead of labels"),
    ]
    coded = [row.labels for row in run.rows if row.labels not in NAMES]
    for kind in ("stored-fp32", "stored-fp16", *coded, "one-per-image", "hard"):
        row = run.find(kind)
        if row is not None:
            note = "whatever the view"
            if kind.startswith(PREFIX):
                kept = parse_codec(kind).kept_epochs(epochs)
                note = f"{kept} epochs of {run.facts['images']:,} views"
            entries.append((name_labels(kind), row.label_bytes, note))
    entries.append(
        ("the source's pixels", run.source_bytes, f"{run.facts['source']['images']:,} images, uncompressed")
    )
    table = TableBlock(
        ("what", "bytes", "size", "against the generator", "note"),
        [(name, size, format_bytes(size), f"{size / delta:.2g} ×", note) for name, size, note in entries],
        title="What is on disk, and what would be",
        highlight=(0, 1),
    )
    text = (
        f"Stored labels grow with every epoch, because every view needs its own; the generator does not. At "
        f"{run.view_bytes:.3g} bytes a view, {run.even_views:,.0f} of them, that is {run.even_epochs:.3g} "
        f"epochs of {run.facts['images']:,} images, weigh what the generator weighs. {_weigh_teacher(run)}"
    )
    return Section("What the labels weigh", text, [_draw_growth(run), table])


def _tell_residual(run: Run) -> str:
    return f", with {format_bytes(run.residual['bytes'])} of residuals" if run.residual else ""


def _weigh_teacher(run: Run) -> str:
    ratio = run.teacher_bytes / run.delta_bytes
    sizes = f"{format_bytes(run.teacher_bytes)} in fp16"
    if ratio > 1:
        return f"The teacher itself would take {ratio:.2g} times the generator's bytes ({sizes})."
    return f"Here the teacher itself is lighter than the generator ({sizes}), and would serve better."


def _draw_growth(run: Run) -> Block:
    images, own = int(run.facts["images"]), run.config.student.fit.epochs
    epochs = sorted({*_EPOCHS, own})
    flat = {
        "label generator": run.delta_bytes,
        "generator with its backbone": run.delta_bytes + int(run.facts["backbone"]["bytes"]),
        "the teacher itself, fp16": run.teacher_bytes,
    }
    stored = Series("all labels stored, fp16", epochs, [run.view_bytes * images * epoch for epoch in epochs])
    return Curve(
        "Bytes of labels against the length of training",
        "epochs of training",
        "labels on disk",
        [*(Series(name, epochs, [size] * len(epochs)) for name, size in flat.items()), stored],
        log_x=True,
        log_y=True,
        y_unit="B",
        text=f"The students here were trained for {own} epochs.",
    )


def _show_fidelity(run: Run) -> Section:
    facts = run.facts["projector"]
    tables = [_tabulate_fidelity(facts["fidelity"], ".1f", ".3f")]
    if run.residual:
        mended = _tabulate_fidelity(
            run.residual["fidelity"],
            ".1f",
            ".3f",
            title=f"With residuals, stored as {run.residual['codec'].removeprefix(PREFIX)}",
            text=f"On the views of the condensed images that have them, those of {run.residual['epochs']} "
            f"epochs, at {run.residual['bytes']:,} bytes.",
        )
        tables.append(mended)
    if "codec_fidelity" in facts:
        stored = _tabulate_fidelity(
            facts["codec_fidelity"],
            ".2f",
            ".3g",
            title=f"The adapter as stored, in {facts['codec']}, against the adapter as trained",
            text=f"What the number format alone costs, at {facts['adapter_bytes']:,} bytes.",
        )
        tables.append(stored)
    text = (
        "Generated labels against the teacher's: on images that neither was trained on, augmented as in "
        "training, and again with a patch of another image in each (CutMix); and on views of the condensed "
        "images, which are what students see."
    )
    return Section("How true the generated labels are", text, [*_draw_training(run), *tables])


def _tabulate_fidelity(
    found: list[dict[str, Any]], percent: str, number: str, title: str = "", text: str = ""
) -> TableBlock:
    rows = [
        (
            each["views"],
            format(100 * each["agreement"], percent),
            format(each["kl"], number),
            format(each["mse"], number),
            int(each["samples"]),
        )
        for each in found
    ]
    heads = ("views", "same first choice (%)", "KL divergence (nats)", "MSE of logits", "views scored")
    return TableBlock(heads, rows, title=title, text=text)


def _draw_training(run: Run) -> list[Block]:
    """Draw the loss of the label generator and of its teacher, where more than one epoch was trained."""
    curves = {
        "The label generator learns": ("MSE + weighted cross-entropy", run.facts["projector"]["losses"]),
        "The teacher learns": ("cross-entropy", run.facts["teacher"]["losses"]),
    }
    return [
        Curve(title, "epoch", loss, [Series("mean loss", range(1, len(losses) + 1), losses)], log_y=True)
        for title, (loss, losses) in curves.items()
        if len(losses) > 1
    ]
