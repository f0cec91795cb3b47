"""How long the image encoders of SAM take, whole and slimmed, and how much memory.

    python benchmarks/slim-latency/run.py [--device cuda] [--models b l h] [--dtypes float32 bfloat16]
        [--batches 1 8] [--repeats 20] [--threads 1]

Configs of SAM-B, SAM-L and SAM-H, and the stock shapes that ratios 0.5 and 0.77 leave of them, with random
weights, on which neither time nor memory depends, at 1024 x 1024 pixels. Times are medians of --repeats calls
with the interquartile range, without gradients; memory is the most that the device's allocator had given out
during them, weights included, and is told on CUDA only. "times_sooner" divides the whole encoder's time by
the slimmed one's, both of this run. Writes results.json beside this file and ends its output with that JSON
on one line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from aerogel.core.allocation import keep_memory
from aerogel.core.devices import choose_device
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.measure import count_parameters, measure_latency
from aerogel.slim import derive_widths, describe
from aerogel.slim.families.fused import fusing

HERE = Path(__file__).parent
SIZES: dict[str, dict[str, Any]] = {
    "b": {},
    "l": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "h": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16},
}
GLOBAL_BLOCKS = {"b": [2, 5, 8, 11], "l": [5, 11, 17, 23], "h": [7, 15, 23, 31]}
RATIOS = (0.0, 0.5, 0.77)


def build(size: str, ratio: float, device: str, dtype: torch.dtype) -> Any:
    """Return the encoder of a SAM, whole or of the shape that a ratio leaves."""
    shape = {**SIZES[size], "global_attn_indexes": GLOBAL_BLOCKS[size]}
    hidden = shape.get("hidden_size", 768)
    shape |= {"hidden_size": hidden, "mlp_dim": 4 * hidden}
    if ratio:
        with torch.device("meta"):
            channels = describe(SamVisionEncoder(SamVisionConfig(**shape)))
        widths = derive_widths(channels, ratio)
        shape |= {"hidden_size": widths.embedding, "mlp_dim": widths.mlp}
    with torch.device(device):
        return SamVisionEncoder(SamVisionConfig(**shape)).to(dtype).eval()


def measure(encoder: Any, batch: int, device: str, repeats: int, threads: int) -> dict[str, Any]:
    """Return time and memory of encoding so many images, as transformers does it and with fused attention."""
    first = next(encoder.parameters())
    pixels = torch.randn(batch, 3, 1024, 1024, device=device).to(first.dtype)
    found: dict[str, Any] = {}
    for name, form in (("stock", nullcontext()), ("fused", fusing(encoder))):
        with form, torch.inference_mode():
            if first.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken = measure_latency(
                lambda: encoder(pixels), warmup=2, repeats=repeats, threads=threads, device=device
            )
            found[name] = {"ms": round(taken.value, 2), "iqr_ms": round(taken.spread or 0.0, 2)}
            if first.device.type == "cuda":
                found[name]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return found


def measure_all(arguments: argparse.Namespace, device: str) -> Iterator[dict[str, Any]]:
    """Yield a row of figures for each encoder, number format and batch."""
    for size in arguments.models:
        whole: dict[tuple[str, int], float] = {}
        for ratio in RATIOS:
            for dtype in arguments.dtypes:
                encoder = build(size, ratio, device, getattr(torch, dtype))
                for batch in arguments.batches:
                    row = {"model": f"sam-{size}", "ratio": ratio, "dtype": dtype, "batch": batch}
                    row["parameters"] = int(count_parameters(encoder).value)
                    row |= measure(encoder, batch, device, arguments.repeats, arguments.threads)
                    time = row["stock"]["ms"]
                    row["times_sooner"] = round(whole.setdefault((dtype, batch), time) / time, 2)
                    print(json.dumps(row), flush=True)
                    yield row
                del encoder


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = list(measure_all(arguments, choose_device(arguments.device).value))
    result = {"figures": {"rows": rows}, "repeats": arguments.repeats, "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
