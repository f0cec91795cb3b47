"""The tables of slim and export, each of one benchmark's results."""

from __future__ import annotations

from typing import Any

SHAPES = {"sam_b": "SAM-B", "r50": "ratio 0.5", "r77": "ratio 0.77"}


def tabulate_shapes(found: dict[str, Any]) -> str:
    """Return widths, parameters and operations of SAM-B's encoder at each ratio."""
    lines = [
        "| | channels, MLP | parameters | GMACs, linear and convolution | GMACs with attention |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, label in SHAPES.items():
        each = found["figures"][name]
        lines.append(
            f"| {label} | {each['hidden_size']}, {each['mlp_dim']} | {each['encoder_parameters']:,} "
            f"| {each['gmacs_linear']:.1f} | {each['gmacs_with_attention']:.1f} |"
        )
    return "\n".join(lines)


DTYPES = ("float32", "bfloat16")


def tabulate_latency(found: dict[str, Any]) -> str:
    """Return time and memory of SAM-B's encoder, whole and slimmed, by form of attention."""
    titles = [f"{name}, {batch}" for name in DTYPES for batch in (1, 8)]
    lines = [f"| ms, GiB | | {' | '.join(titles)} |", "|---|---|" + "---:|" * len(titles)]
    rows = [row for row in found["figures"]["rows"] if row["model"] == "sam-b"]
    for ratio in sorted({row["ratio"] for row in rows}):
        for form, label in (("stock", "transformers"), ("fused", "fused")):
            each = {(row["dtype"], row["batch"]): row[form] for row in rows if row["ratio"] == ratio}
            cells = [
                f"{each[name, batch]['ms']:.0f}, {each[name, batch]['peak_gib']:.1f}"
                for name in DTYPES
                for batch in (1, 8)
            ]
            title = f"ratio {ratio}" if ratio else "SAM-B"
            lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


SEGMENTERS = {"mobile_sam": "MobileSAM", "sam_small": "sam-small", "sam_nano": "`aerogel/sam-nano`"}
PROMPTS = {"one point": "point", "centre point": "centre", "box": "box"}


def tabulate_segmenters(found: dict[str, Any]) -> str:
    """Return mIoU of each segmenter by prompt, and what is kept of MobileSAM's."""
    heads = " | ".join(f"{title} | kept" for title in PROMPTS)
    lines = [f"| | {heads} |", "|---|" + "---:|" * (2 * len(PROMPTS))]
    for name, each in found["figures"].items():
        rows = {row["prompt"]: row for row in each["rows"] if row["predictor"] == "model"}
        cells = []
        for title, prompt in PROMPTS.items():
            kept = each["kept"][title]
            cells += [_write_percent(rows[prompt]["iou"]["by_object"]), f"{100 * kept['value']:.1f} %"]
        lines.append(f"| {SEGMENTERS[name]} | {' | '.join(cells)} |")
    each = next(iter(found["figures"].values()))
    control = next(row for row in each["rows"] if row["predictor"] == "filled box")
    filled = _write_percent(control["iou"]["by_object"])
    lines.append(f"| filled box, no model | {' | ' * (2 * len(PROMPTS) - 2)}{filled} | |")
    return "\n".join(lines)


def _write_percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


ENCODERS = {"sam_small": "sam-small, 384 pixels", "sam_b_blocks": "4 blocks of SAM-B, 1024 pixels"}
RUNS = ("float32_forward", "float32_training", "bfloat16_forward", "bfloat16_training")


def tabulate_attention(found: dict[str, Any]) -> str:
    """Return how many times sooner each encoder is done with the faster attention."""
    heads = " | ".join(run.replace("_", ", ").replace("training", "and back") for run in RUNS)
    lines = [f"| | {heads} |", "|---|" + "---:|" * len(RUNS)]
    for name, label in ENCODERS.items():
        each = found["figures"][name]
        cells = [
            f"{each[run]['ratio']:.2f} ({each[run]['range'][0]:.2f} to {each[run]['range'][1]:.2f})"
            for run in RUNS
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


KINDS = {"embedding": "residual stream", "head_dims": "dimensions of heads", "mlp": "MLP channels"}


def tabulate_criteria(found: dict[str, Any]) -> str:
    """Return the rank correlation of each criterion with the damage of single channels."""
    lines = [f"| criterion | {' | '.join(KINDS.values())} | seconds |", "|---|" + "---:|" * 4]
    for name, each in found["figures"].items():
        cells = [
            f"{each[kind]['spearman']:.3f} ({each[kind]['low']:.3f} to {each[kind]['high']:.3f})"
            for kind in KINDS
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {each['seconds']:.0f} |")
    return "\n".join(lines)


RATIOS = {"r50": "50 %", "r77": "77 %"}
WAYS = {
    "teacher": "sam-small, not slimmed",
    "slim": "**ours**",
    "slim_flex": "**ours**, blocks of different widths",
    "slim_mosaic": "**ours**, with mosaics",
    "slim_long": "**ours**, ten times as long",
    "slim_long_mosaic": "**ours**, nine times as long, with mosaics",
    "slim_long_mosaic_masks": "the same, then masks",
    "slim_as_published": "as published",
    "one_step_rotated": "ours in one step",
    "one_step": "one step, channels as trained",
    "taylor": "the same by Taylor",
    "magnitude": "the same by magnitude",
    "random": "the same at random",
    "scratch": "the same shape from scratch",
}
PHOTOS = {"coco": "COCO", "bsds": "BSDS500"}


def tabulate_retention(found: dict[str, Any]) -> str:
    """Return mIoU of each way of slimming, the share kept, and how far it lies behind ours."""
    places = [(key, prompt) for key in PHOTOS for prompt in ("point", "box")]
    titles = [f"{PHOTOS[key]}, {prompt}" for key, prompt in places]
    lines = [f"| ratio | | {' | '.join(titles)} |", "|---|---|" + "---:|" * len(places)]
    for ratio, rows in found["figures"].items():
        for name, row in rows.items():
            cells = [_write_retention(row[key], prompt) for key, prompt in places]
            lines.append(f"| {RATIOS[ratio]} | {WAYS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_retention(row: dict[str, Any], prompt: str) -> str:
    text = f"{100 * row[prompt]['value']:.1f}"
    if "kept" in row:
        kept = row["kept"][prompt]
        text += f"; {100 * kept['value']:.1f} % ({100 * kept['low']:.1f} to {100 * kept['high']:.1f})"
    if "behind_slim" in row:
        behind = row["behind_slim"][prompt]
        low, high = 100 * behind["low"], 100 * behind["high"]
        text += f"; {100 * behind['value']:+.1f} ({low:+.1f} to {high:+.1f})"
    return text


FORMATS = {"fp32": "", "fp16": "_fp16", "q8": "_quantized"}


def tabulate_export(found: dict[str, Any]) -> str:
    """Return how far each number format is from torch, and what its files weigh."""
    lines = [
        "| format | largest difference, of the spread | masks' IoU, points | boxes | encoder | decoder |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant, suffix in FORMATS.items():
        each = found["figures"][variant]
        masks = [f"{row['iou']:.3f} (worst {row['smallest']:.2f})" for row in each["masks"].values()]
        sizes = [
            f"{found['bytes'][f'onnx/{name}{suffix}.onnx'] / 1e6:.1f} MB"
            for name in ("vision_encoder", "prompt_encoder_mask_decoder")
        ]
        lines.append(f"| {variant} | {each['worst_share']:.1g} | {' | '.join([*masks, *sizes])} |")
    return "\n".join(lines)
