"""The shapes of a slimmed SAM-B: widths, parameters and multiply-accumulates, and that stock classes load it.

    python benchmarks/slim-shapes/run.py [--no-forward]

SAM-B's config, random weights, random scores. For each ratio a plan is made and applied; the encoder's
parameters and MACs at 1024 x 1024 are counted without running it; the folder is opened with transformers' own
SamModel, and both must give the same embedding of one image, bit for bit. Exits with 1 if a figure is more
than 0.5 % from what is known of these shapes, or an output differs. Writes results.json beside this file and
ends its output with that JSON on one line. --no-forward leaves out the two passes per ratio (half a minute of
one core in all) and writes no results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import SamConfig, SamModel
from transformers.utils import logging

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.measure import count_macs, count_parameters, size_bytes
from aerogel.slim import Plan, apply_plan, derive_widths, describe, make_plan

RATIOS = (0.5, 0.77)
IMAGE = (1, 3, 1024, 1024)
TOLERANCE = 0.005
PLANNING_LIMIT_S = 60.0
# hidden width, MLP width, encoder parameters, GMACs of linear layers and convolutions, GMACs with attention
KNOWN: dict[str, tuple[int, int, int, float, float]] = {
    "sam_b": (768, 3072, 89_670_912, 368.7, 486.0),
    "r50": (384, 1536, 23_897_216, 94.8, 153.5),
    "r77": (168, 696, 5_658_968, 20.9, 46.6),
}


def build_sam() -> SamModel:
    """Return SAM-B with random weights that give outputs unlike zero."""
    model = SamModel(SamConfig())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Onto transformers' own values, which are ones in norms and all but nothing elsewhere.
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.eval()


def count(model: SamModel) -> dict[str, Any]:
    """Return the widths of an encoder, its parameters and its MACs at 1024 x 1024."""
    macs = count_macs(model.vision_encoder, IMAGE)
    vision = model.config.vision_config
    return {
        "hidden_size": vision.hidden_size,
        "mlp_dim": vision.mlp_dim,
        "heads": vision.num_attention_heads,
        "encoder_parameters": int(count_parameters(model.vision_encoder).value),
        "parameters": int(count_parameters(model).value),
        "gmacs_linear": round(macs.linear / 1e9, 3),
        "gmacs_with_attention": round(macs.with_attention / 1e9, 3),
    }


def hold_against(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Add what is known of the shape and the largest relative distance from it; print both."""
    keys = ("hidden_size", "mlp_dim", "encoder_parameters", "gmacs_linear", "gmacs_with_attention")
    known = dict(zip(keys, KNOWN[name], strict=True))
    distance = max(abs(figures[key] / value - 1.0) for key, value in known.items())
    kept = "kept" if distance <= TOLERANCE else "MISSED"
    print(
        f"{name}: {figures['hidden_size']}/{figures['mlp_dim']}, "
        f"{figures['encoder_parameters']:,} parameters, {figures['gmacs_linear']:.1f} GMACs, "
        f"{figures['gmacs_with_attention']:.1f} with attention; "
        f"at most {distance:.3%} from what is known: {kept}",
        flush=True,
    )
    return {**figures, "known": known, "distance": round(distance, 6), "ok": distance <= TOLERANCE}


def plan_ratio(model: SamModel, ratio: float) -> tuple[Plan, float]:
    """Return a plan from random scores, and the seconds that describing and planning took."""
    generator = np.random.default_rng(0)
    begun = time.perf_counter()
    channels = describe(model)
    scores = {name: generator.random(size) for name, size in channels.sizes.items()}
    plan = make_plan(channels, scores, derive_widths(channels, ratio), layout="stock")
    return plan, time.perf_counter() - begun


def compare_loaded(slim: Any, folder: Path, forward: bool) -> dict[str, Any]:
    """Save a model, open it with transformers' own class and compare embeddings of one image."""
    slim.save_pretrained(folder)
    loaded, info = SamModel.from_pretrained(folder, output_loading_info=True)
    strays = sorted(str(key) for keys in info.values() for key in keys)
    found: dict[str, Any] = {"class": type(loaded).__name__, "strays": strays}
    found["folder_bytes"] = int(size_bytes(folder))
    if forward:
        image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ours, theirs = (each.vision_encoder(image).last_hidden_state for each in (slim, loaded.eval()))
        found |= {"identical": bool(torch.equal(ours, theirs)), "output_std": round(float(ours.std()), 6)}
        print(f"  loaded as {found['class']}, identical output: {found['identical']}", flush=True)
    return found


def measure_ratio(model: SamModel, name: str, ratio: float, forward: bool) -> dict[str, Any]:
    """Plan, cut, count, save and load at one ratio."""
    plan, planning_s = plan_ratio(model, ratio)
    begun = time.perf_counter()
    slim: Any = apply_plan(model, plan)
    cutting_s = time.perf_counter() - begun
    figures = hold_against(name, count(slim))
    print(f"  planned in {planning_s:.2f} s, cut in {cutting_s:.2f} s", flush=True)
    with TemporaryDirectory() as folder:
        loaded = compare_loaded(slim, Path(folder), forward)
    times = {"planning_s": round(planning_s, 3), "cutting_s": round(cutting_s, 3)}
    return {**figures, "ratio": ratio, "plan_sha256": plan.digest, **times, "loaded": loaded}


def find_missed(figures: dict[str, Any], forward: bool) -> list[str]:
    """Return what does not hold."""
    missed = [f"{name}: figures" for name, each in figures.items() if not each["ok"]]
    for name, each in figures.items():
        loaded = each.get("loaded")
        if loaded is None:
            continue
        if loaded["strays"] or (forward and not (loaded["identical"] and loaded["output_std"] > 0.1)):
            missed.append(f"{name}: loaded by transformers")
        if each["planning_s"] > PLANNING_LIMIT_S:
            missed.append(f"{name}: planning time")
    return missed


def main() -> int:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--no-forward", action="store_true")
    forward = not parser.parse_args().no_forward
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    model = build_sam()
    figures = {"sam_b": hold_against("sam_b", count(model))}
    for ratio in RATIOS:
        name = f"r{round(100 * ratio)}"
        figures[name] = measure_ratio(model, name, ratio, forward)
    missed = find_missed(figures, forward)
    results = {"figures": figures, "missed": missed, "environment": environment()}
    if forward:
        text = json.dumps(results, indent=2, sort_keys=True)
        write_text_atomic(Path(__file__).parent / "results.json", text + "\n")
    print(json.dumps(results, sort_keys=True))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
