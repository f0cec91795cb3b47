"""Write the tables of README and docs from the committed results, so that no figure is typed by hand.

python benchmarks/tables.py            # rewrite the pages
python benchmarks/tables.py --check    # exit with 1 if a page differs from the results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/condense.md", "docs/parallel.md", "docs/slim.md")
NAMES = {
    "hard": "hard labels",
    "one_per_image": "one soft label per image",
    "full_labels": "full soft labels, fp16",
    "generator": "**label generator**",
    "teacher": "teacher online, fp16",
    "random_real_full_labels": "random images, full soft labels",
}


def tabulate_fashion(found: dict[str, Any]) -> str:
    """Return the Fashion-MNIST table: accuracy and bytes of every kind of labels, per number of images."""
    figures = found["figures"]
    settings = sorted(figures, key=lambda name: int(name.removeprefix("ipc")))
    heads = [f"{name.removeprefix('ipc')} per class | bytes" for name in settings]
    lines = [f"| labels | {' | '.join(heads)} |", "|---|" + "---:|" * (2 * len(settings))]
    for key, label in NAMES.items():
        if not any(key in figures[name] for name in settings):
            continue
        cells = []
        for name in settings:
            row = figures[name].get(key)
            cells.append(f"{row['mean']:.1f} ± {row['std']:.1f}" if row else "not run")
            cells.append(f"{figures[name]['bytes'][key]:,}" if row else "")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    both = [f" | {figures[name]['bytes']['generator_and_backbone']:,}" for name in settings]
    lines.append("| label generator and backbone |" + " |".join(both) + " |")
    pictures = [f" | {figures[name]['bytes']['images']:,}" for name in settings]
    lines.append("| the images |" + " |".join(pictures) + " |")
    return "\n".join(lines)


TOWERS = {"vit_b32": "CLIP ViT-B/32", "rn50": "CLIP RN50"}
ADAPTERS = {"float32": "fp32", "float16": "fp16", "int8": "**int8**", "int4": "int4"}


def tabulate_storage(found: dict[str, Any]) -> str:
    """Return the bytes of adapters, towers, teacher and labels, each with its share of the labels."""
    towers = [found["figures"][name] for name in TOWERS]
    heads = [f"{title} | of the labels, 50 per class" for title in TOWERS.values()]
    lines = [f"| bytes | {' | '.join(heads)} |", "|---|" + "---:|" * (2 * len(towers))]

    def add(label: str, sizes: list[int]) -> None:
        cells = [
            f"{size:,} | {_write_power(size / each['full_label_bytes_ipc50'])}"
            for size, each in zip(sizes, towers, strict=True)
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")

    for codec, label in ADAPTERS.items():
        add(f"adapter, {label}", [each["codec_bytes"][codec] for each in towers])
    with_tower = [each["delta_plus_backbone_bytes"] for each in towers]
    add("adapter in int8 and image tower in fp16", with_tower)
    words = [size + each["text_tower_bytes"] for size, each in zip(with_tower, towers, strict=True)]
    add("the same and the text tower", words)
    add("the teacher itself, ResNet-18 in fp16", [each["teacher_fp16_bytes"] for each in towers])
    for ipc in (1, 10, 50, 100, 200):
        sizes = [each[f"full_label_bytes_ipc{ipc}"] for each in towers]
        add(f"full labels, {ipc} per class", sizes)
    for label, key in (("the adapter", "break_even_views"), ("both", "break_even_views_with_backbone")):
        cells = [f"{each[key]:,.0f} views | " for each in towers]
        of = "in int8" if label == "the adapter" else "(adapter and image tower)"
        lines.append(f"| stored labels that weigh as much as {label} {of} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_power(share: float) -> str:
    """Write a share as 2.1e-5, or from a thousandth up as a plain number."""
    if share >= 1e-3:
        return f"{share:.2g}"
    digits, power = f"{share:.2e}".split("e")
    return f"{digits}e{int(power)}"


def tabulate_codecs(found: dict[str, Any]) -> str:
    """Return the bytes of a trained adapter in each codec, and how its labels differ."""
    lines = [
        "| codec | bytes | first choice changed: condensed views | augmented | CutMix | KL, condensed views "
        "| as the teacher's, condensed views |",
        "|---|" + "---:|" * 6,
    ]
    for codec, label in ADAPTERS.items():
        each = found["figures"][codec]
        ours, theirs = each["against_float32"], each["against_teacher"]
        changed = [
            f"{100 * (1 - ours[views]['agreement']):.2f} %" for views in ("condensed", "augmented", "cutmix")
        ]
        kl, agreement = ours["condensed"]["kl"], theirs["condensed"]["agreement"]
        cells = [f"{each['bytes']:,}", *changed, f"{kl:.1e}" if kl else "0", f"{100 * agreement:.2f} %"]
        lines.append(f"| {label.strip('*')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tabulate_plan(found: dict[str, Any]) -> str:
    """Return balance and traffic of each denoiser per count of devices; the published code's in brackets."""
    figures = found["figures"]
    # First those that are held against limits, then from small to large.
    names = sorted(
        figures, key=lambda name: ("limit_mb" not in figures[name]["n2"], figures[name]["parameters_m"])
    )
    layouts = {name: _read_layouts(figures[name]) for name in names}
    counts = sorted({count for each in layouts.values() for count in each})
    lines = [
        f"| denoiser | {' | '.join(f'{count} devices' for count in counts)} |",
        "|---|" + "---:|" * len(counts),
    ]
    for name, each in layouts.items():
        cells = [_write_layout(each[count]) if count in each else "" for count in counts]
        lines.append(f"| {figures[name]['title']}, {figures[name]['size']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _read_layouts(figures: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(key[1:]): each for key, each in figures.items() if key[0] == "n" and key[1:].isdecimal()}


def _write_layout(layout: dict[str, Any]) -> str:
    sent = (
        f"{layout['traffic_mb']:,.2f} MB" if layout["traffic_mb"] < 100 else f"{layout['traffic_mb']:,.0f} MB"
    )
    published = f" ({layout['published_mb']:g})" if "published_mb" in layout else ""
    return f"{layout['balance']:.3f}, {sent}{published}"


def tabulate_exact(found: dict[str, Any]) -> str:
    """Return what was run to compare ranks with the simulator, and in how many runs they differ."""
    figures = found["figures"]
    grid = figures["grid"]
    cells = (
        f"{len(figures['denoisers'])}, of {figures['classes']} classes",
        _join(grid["components"]),
        _join(grid["strides"]),
        f"{_join(grid['warmups'])} of {grid['steps']} steps",
        f"{figures['cases']}",
        f"**{figures['mismatches']}**",
    )
    return "\n".join(
        (
            "| denoisers | components | strides | warm-ups | runs | mismatches |",
            "|---|---|---|---|---:|---:|",
            f"| {' | '.join(cells)} |",
        )
    )


def _join(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}"


MODELS = {
    "zoo": "`aerogel/fashion-unet`, batch 2",
    "sd21_shaped": "U-Net of SD 2.1's shape at 0.3 of its width, batch 2, 32 x 32 latents",
}


def tabulate_speed(found: dict[str, Any]) -> str:
    """Return how much sooner two processes end than one, of one thread and of two."""
    lines = [
        "| denoiser | against one process of one thread | against one of two threads | predicted | bound "
        "| traffic a round |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, each in found["figures"].items():
        cells = [f"{each[key]:.2f}" for key in ("speedup_vs_same_threads", "speedup_vs_all_threads")]
        cells += [f"{each[key]:.2f}" for key in ("predicted_speedup", "bound")]
        lines.append(f"| {MODELS[name]} | {' | '.join(cells)} | {each['bytes_per_round'] / 1e6:.2f} MB |")
    return "\n".join(lines)


def tabulate_fidelity(found: dict[str, Any]) -> str:
    """Return likeness and speed of each setting, beside fewer steps in turn that end in the same time."""
    figures = dict(found["figures"])
    whole = figures.pop("sequential")
    likeness = "PSNR (dB) | SSIM | recognised | Fréchet"
    first = likeness.replace("recognised", f"recognised (in turn {whole['recognised']:.3f})")
    lines = [
        f"| components, stride, warm-up | bound | {first} | fewer steps | {likeness} |",
        "|---|" + "---:|" * 10,
    ]
    for name, each in figures.items():
        components, rest = name[1:].split("s")
        stride, warmup = rest.split("w")
        fewer = each["fewer_steps"]
        setting = f"{components}, {stride}, {warmup}"
        lines.append(
            f"| {setting} | {each['speedup']:.2f} | {_write_likeness(each)} | {fewer['steps']} "
            f"| {_write_likeness(fewer)} |"
        )
    return "\n".join(lines)


def _write_likeness(row: dict[str, Any]) -> str:
    likeness = f"{row['psnr_db']['mean']:.1f} ± {row['psnr_db']['std']:.1f} | {row['ssim']['mean']:.3f}"
    return f"{likeness} | {row['recognised']:.3f} | {row['frechet_distance']:.2f}"


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
    "slim_as_published": "as published",
    "one_step": "one step, our criterion",
    "taylor": "one step, Taylor",
    "magnitude": "one step, magnitude",
    "random": "one step, random",
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


SOURCES = {
    "hard": "hard labels",
    "stored_fp32": "stored, fp32",
    "stored_fp16": "stored, fp16",
    "stored_int8": "stored, int8",
    "stored_top5": "stored, top 5",
    "stored_vq256": "stored, codebook of 256",
    "generator": "label generator",
    "generator_cached": "label generator, cached",
    "teacher": "teacher",
    "teacher_cached": "teacher, cached",
}


def tabulate_throughput(found: dict[str, Any]) -> str:
    """Return what a training step takes with each kind of labels, and the labels' share of it."""
    lines = [
        "| labels | a step, of one with labels stored in fp16 | share of the step that labels take |",
        "|---|---:|---:|",
    ]
    for name, label in SOURCES.items():
        each = found["figures"][name]
        step, share = each["step_ratio"], each["label_share"]
        shares = [100 * share[key] for key in ("median", "low", "high")]
        lines.append(
            f"| {label} | {step['median']:.2f} ({step['low']:.2f} to {step['high']:.2f}) "
            f"| {shares[0]:.2f} % ({shares[1]:.2f} to {shares[2]:.2f}) |"
        )
    return "\n".join(lines)


TABLES = {
    "condense-fashion-mnist": tabulate_fashion,
    "condense-throughput": tabulate_throughput,
    "condense-storage": tabulate_storage,
    "condense-codecs": tabulate_codecs,
    "parallel-plan": tabulate_plan,
    "parallel-exact": tabulate_exact,
    "parallel-speed": tabulate_speed,
    "parallel-fidelity": tabulate_fidelity,
    "slim-shapes": tabulate_shapes,
    "slim-zoo": tabulate_segmenters,
    "slim-criteria": tabulate_criteria,
    "slim-retention": tabulate_retention,
    "export-parity": tabulate_export,
}


def fill_page(text: str) -> str:
    """Return the page with every marked table replaced by that of the committed results."""
    for name, tabulate in TABLES.items():
        results = ROOT / "benchmarks" / name / "results.json"
        begin, end = f"<!-- {name}: table -->", f"<!-- {name}: end -->"
        if begin in text and results.exists():
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            table = tabulate(json.loads(results.read_text(encoding="utf-8")))
            text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def main() -> int:
    """Rewrite the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        filled = fill_page(text)
        if filled != text:
            stale.append(name)
            if not check:
                page.write_text(filled, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from the results' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
