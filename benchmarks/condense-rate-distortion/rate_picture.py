"""Show the benchmark's results on one page: accuracy against bytes, the verdicts, every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rate_settings import parse_generator
from rate_verdicts import FULL, GENERATOR, LOW, SMALL

from aerogel.condense.codecs.naming import PREFIX, parse_codec
from aerogel.report import Level, Point, Report, Scatter, Section, TableBlock

CODECS = {"float32": "fp32", "float16": "fp16"}
GROUPS = {
    "generator": "label generators",
    "corrected": "label generators with residuals",
    "codec": "stored labels",
    "other": "less than a label per view",
}


def name_row(name: str) -> str:
    """Return what pages call a row."""
    made = parse_generator(name.removeprefix(f"{GENERATOR}-"))
    if made is not None:
        plain = f"generator, rank {made.rank}, {CODECS.get(made.codec, made.codec)}"
        if made.residual is None:
            return plain
        return f"{plain}, residuals {made.residual.removeprefix(PREFIX)} of {made.epochs} epochs"
    if name.startswith(PREFIX):
        return parse_codec(name).short
    return {"hard": "hard labels", "one-per-image": "one soft label per image"}[name]


def draw_rows(figures: Mapping[str, Any]) -> Scatter:
    """Return the plot of all rows."""
    rows, best = figures["rows"], figures["verdicts"]["best_small"]
    points = [
        Point(
            name_row(name).removeprefix("stored, ").removeprefix("generator, "),
            row["bytes"],
            row["mean"],
            row["std"],
            group="full labels, fp16" if name == FULL else GROUPS[row["kind"]],
            emphasis=name == FULL or (best is not None and name == best["row"]),
        )
        for name, row in rows.items()
    ]
    levels = [Level("full labels, fp16", rows[FULL]["mean"])] if FULL in rows else []
    return Scatter(
        "Accuracy against bytes of labels",
        "bytes of labels",
        "accuracy on the test images",
        points,
        x_unit="B",
        y_unit="%",
        levels=levels,
        text="Bars are the sample standard deviation over seeds. A generator's bytes are its adapter's, and "
        "its residuals' where there are some; "
        f"the public backbone that it changes has {figures['backbone_bytes']:,} B.",
    )


def write_verdicts(verdicts: Mapping[str, Any]) -> str:
    """Return the verdicts in words, also those on generators without residuals where others are judged."""
    parts = _write_verdicts(verdicts)
    alone = verdicts["alone"]
    if alone != {name: verdicts[name] for name in alone}:
        parts += ["Without residuals:", *_write_verdicts(alone)]
    return "\n\n".join(parts)


def _write_verdicts(verdicts: Mapping[str, Any]) -> list[str]:
    parts = []
    best, curve = verdicts["best_small"], verdicts["curve"]
    if best is not None:
        gap = best["gap"]
        between = ""
        if gap["low"] is not None:
            between = f" (95 % interval {gap['low']:.2f} to {gap['high']:.2f}, paired)"
        parts.append(
            f"Within {100 * SMALL:g} % of the bytes of full labels, the best is {name_row(best['row'])}: "
            f"{best['bytes']:,} B, {gap['value']:.2f} points below full labels{between}. "
            f"{'At most' if best['holds'] else 'More than'} {best['bar']} points."
        )
    if curve is not None and curve["codecs"]:
        total, below = len(curve["codecs"]), [name_row(name) for name in curve["not_above"]]
        tiny = [name_row(name) for name in curve["smaller_than_any_generator"]]
        words = f"Codecs below {100 * LOW:g} % of the bytes: {total}. The generators' curve lies above "
        words += f"{total - len(below) - len(tiny)} of them."
        words += f" Not above: {'; '.join(below)}." if below else ""
        words += f" Smaller than any generator: {'; '.join(tiny)}." if tiny else ""
        parts.append(words)
    return parts


def tabulate_rows(figures: Mapping[str, Any]) -> TableBlock:
    """Return every row's figures, by bytes."""
    lines: list[list[str | int | float | None]] = []
    for name, row in sorted(figures["rows"].items(), key=lambda item: (item[1]["bytes"], item[0])):
        true = row["fidelity"] or {}
        share = None if row["share"] is None else f"{100 * row['share']:.2f} %"
        spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
        agreement = f"{100 * true['agreement']:.1f} %" if true else None
        cells = [name_row(name), row["bytes"], share, f"{row['mean']:.2f}{spread}", agreement]
        lines.append([*cells, *(f"{true[key]:.3g}" if true else None for key in ("kl", "mse"))])
    header = ("labels", "bytes", "of fp16", "accuracy (%)", "as the teacher's", "KL (nats)", "MSE")
    text = (
        "Agreement, KL divergence and mean squared error are with the teacher, on the views that the "
        "students see. Of a pruned store these are few."
    )
    return TableBlock(header, lines, title="Every row", text=text)


def draw(results: Mapping[str, Any], settings: Mapping[str, Any]) -> Report:
    """Return the page."""
    figures = results["figures"]
    seeds = max((row["seeds"] for row in figures["rows"].values()), default=0)
    lede = (
        f"{figures['images']} condensed images, students of {figures['epochs']} epochs, {seeds} seeds; "
        f"the teacher reaches {figures['teacher_test_accuracy']:.2f} %."
    )
    blocks = (draw_rows(figures), tabulate_rows(figures))
    section = Section("Label generators and stored labels", write_verdicts(figures["verdicts"]), blocks)
    command = "python benchmarks/condense-rate-distortion/run.py"
    return Report(
        "Accuracy against bytes",
        lede,
        sections=(section,),
        config=settings,
        environment=results["environment"],
        command=command,
    )
