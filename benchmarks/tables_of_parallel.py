"""The tables of parallel, each of one benchmark's results."""

from __future__ import annotations

from typing import Any


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
