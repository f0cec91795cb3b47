"""Tell what a parallel run cost, saved and lost, as a report."""

from __future__ import annotations

from statistics import median

import torch

from aerogel.core.environment import environment
from aerogel.measure import Measurement, format_bytes, psnr, ssim
from aerogel.parallel.plan import Plan
from aerogel.parallel.sampling import Pictures, Request, tile, to_bytes
from aerogel.parallel.trial import Speed, Trial
from aerogel.report import (
    Comparison,
    Picture,
    Receipt,
    ReceiptLine,
    Report,
    Section,
    TableBlock,
)

_MOST_PAIRS = 12


def measure_likeness(trial: Trial) -> dict[str, Measurement]:
    """Return PSNR and SSIM of the parallel pictures against those sampled in turn, rounded to 8 bits."""
    ours, theirs = (_as_tensor(each) for each in (trial.parallel, trial.sequential))
    return {"PSNR": psnr(ours, theirs), "SSIM": ssim(ours, theirs)}


def write_likeness(found: Measurement) -> str:
    """Return the value and its spread over the pictures."""
    if "identical" in found.name:
        return found.name.partition(" ")[2].strip("()")
    digits = 1 if found.unit else 3
    spread = "" if found.spread is None else f" ± {found.spread:.{digits}f}"
    return f"{found.value:.{digits}f}{spread} {found.unit}".strip()


def _as_tensor(pictures: Pictures) -> torch.Tensor:
    """Return pictures, or the frames of videos, as [N, C, H, W]."""
    frames = torch.from_numpy(to_bytes(pictures)).flatten(0, -4)
    return frames.permute(0, 3, 1, 2).float() / 255.0


def describe(
    model: str, request: Request, trial: Trial, speed: Speed | None = None, *, command: str | None = None
) -> Report:
    """Describe a trial, and the times that :func:`measure_speed` found, as a report."""
    lanes = trial.stats.lanes
    devices = max(lane.devices for lane in lanes)
    count = len(trial.parallel)
    return Report(
        title=f"{model} on {devices} devices at once",
        lede=_write_lede(request, trial, devices, count),
        receipt=_describe_receipt(request, trial, speed, devices),
        sections=(_show_pictures(trial, devices), _show_plan(trial.plan)),
        config={"model": model, "steps": request.steps, "seed": request.seed, "plan": trial.plan.to_dict()},
        environment=environment(),
        command=command or "",
    )


def _write_lede(request: Request, trial: Trial, devices: int, count: int) -> str:
    again = (
        "The parallel pictures are those of a simulation in one process, bit for bit."
        if trial.exact
        else f"They differ from a simulation in one process by up to {trial.difference:.3g} (of 1)."
    )
    return (
        f"{count} pictures in {request.steps} steps: after the warm-up each of {devices} devices runs its "
        f"part of the denoiser at the same time as the others, on what they gave one step ago. {again}"
    )


def _describe_receipt(request: Request, trial: Trial, speed: Speed | None, devices: int) -> Receipt:
    likeness = measure_likeness(trial)
    travels = sum(lane.bytes_per_round for lane in trial.stats.lanes)
    predicted = min(lane.predicted_speedup for lane in trial.stats.lanes)
    saved = [ReceiptLine("predicted", f"{predicted:.2f} times sooner", "traffic left out")]
    if speed is not None:
        saved.insert(0, _write_speed(speed))
    return Receipt(
        paid=(
            ReceiptLine("devices", str(devices), "each runs its part of every step"),
            ReceiptLine("traffic", f"{format_bytes(travels)} a round", "between them"),
        ),
        saved=tuple(saved),
        lost=tuple(
            ReceiptLine(name, write_likeness(found), "against sampling in turn")
            for name, found in likeness.items()
        ),
        total=(
            f"{median(speed.alone):.2f} s become {median(speed.parallel):.2f} s" if speed is not None else ""
        ),
    )


def _write_speed(speed: Speed) -> ReceiptLine:
    low, high = min(speed.parallel), max(speed.parallel)
    return ReceiptLine(
        "time",
        f"{speed.over_alone:.2f} times sooner",
        f"medians of {len(speed.parallel)} calls; {low:.2f} to {high:.2f} s in parallel, "
        f"{min(speed.alone):.2f} to {max(speed.alone):.2f} s in turn",
    )


def _show_pictures(trial: Trial, devices: int) -> Section:
    names = ("one device, in turn", f"{devices} devices at once")
    if len(trial.parallel) > _MOST_PAIRS:
        columns = round(len(trial.parallel) ** 0.5)
        pairs = [tuple(Picture(tile(each, columns)) for each in (trial.sequential, trial.parallel))]
    else:
        both = zip(trial.sequential, trial.parallel, strict=True)
        pairs = [tuple(Picture(tile(each[None], 1)) for each in pair) for pair in both]
    small = trial.parallel.shape[-2] <= 64
    block = Comparison([(first, second) for first, second in pairs], names, pixelated=small)
    return Section("The pictures", "The same noise and the same steps on both sides.", (block,))


def _show_plan(plan: Plan) -> Section:
    rows = [
        (
            name,
            str(device),
            f"{share:.1%}",
            f"{layout['balance']:.3f}",
            format_bytes(layout["bytes_per_round"]),
        )
        for name, layouts in plan.to_dict().items()
        for layout in layouts
        for device, share in enumerate(layout["shares"])
    ]
    header = ("denoiser", "device", "share of the work", "balance", "traffic a round")
    text = "Balance is the largest share over the ideal one; traffic is of all devices together."
    return Section("Who runs what", text, (TableBlock(header, rows),))
