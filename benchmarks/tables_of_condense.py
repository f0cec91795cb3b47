"""The tables of condense, each of one benchmark's results."""

from __future__ import annotations

from typing import Any

NAMES = {
    "hard": "hard labels",
    "one_per_image": "one soft label per image",
    "full_labels": "full soft labels, fp16",
    "generator": "**label generator**",
    "teacher": "teacher online, fp16",
    "random_real_full_labels": "random images, full soft labels",
}


def tabulate_students(found: dict[str, Any]) -> str:
    """Return accuracy and bytes of every kind of labels, per number of images that there are results of."""
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
    for label, key in (("label generator and backbone", "generator_and_backbone"), ("the images", "images")):
        sizes = [figures[name]["bytes"].get(key) for name in settings]
        shown = [" | not run" if size is None else f" | {size:,}" for size in sizes]
        lines.append(f"| {label} |" + " |".join(shown) + " |")
    return "\n".join(lines)


TOWERS = {"vit_b32": "CLIP ViT-B/32", "rn50": "CLIP RN50"}
ADAPTERS = {"float32": "fp32", "float16": "fp16", "int8": "**int8**"}
ADAPTERS |= {codec: codec for codec in ("int7", "int6", "int5", "int4")}


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


SOURCES = {
    "hard": "hard labels",
    "stored_fp32": "stored, fp32",
    "stored_fp16": "stored, fp16",
    "stored_int8": "stored, int8",
    "stored_top5": "stored, top 5",
    "stored_vq256": "stored, codebook of 256",
    "generator": "label generator",
    "generator_with_residuals": "label generator with residuals",
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


def tabulate_rate_distortion(found: dict[str, Any]) -> str:
    """Return accuracy, bytes and fidelity of every generator and every kind of stored labels, by bytes."""
    lines = [
        "| labels | bytes | of fp16 | accuracy | first choice as the teacher's | KL | MSE |",
        "|---|" + "---:|" * 6,
    ]
    rows = found["figures"]["rows"]
    for name, row in sorted(rows.items(), key=lambda item: (item[1]["bytes"], item[0])):
        share = f"{100 * row['share']:.2f} %"
        cells = [f"{row['bytes']:,}", share, f"{row['mean']:.2f} ± {row['std']:.2f}"]
        true = row["fidelity"]
        if true is None:
            cells += ["", "", ""]
        else:
            cells += [f"{100 * true['agreement']:.1f} %", f"{true['kl']:.4f}", f"{true['mse']:.4f}"]
        lines.append(f"| {_name_labels(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _name_labels(name: str) -> str:
    if name.startswith("generator-"):
        _, rank, made = name.split("-")
        codec, _, residual = made.partition("+")
        plain = f"generator, rank {rank}, {ADAPTERS[codec].strip('*')}"
        if not residual:
            return f"**{plain}**"
        kind, epochs = residual.split("@")
        return f"**{plain}, residuals `{kind}` of {epochs} epochs**"
    if name.startswith("stored-"):
        return f"`{name}`"
    return NAMES[name.replace("-", "_")]
