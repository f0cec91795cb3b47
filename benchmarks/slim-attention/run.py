"""How much sooner an encoder is done whose relative positions are dimensions of queries and keys.

    python benchmarks/slim-attention/run.py [--threads 1] [--repeats 5]

Two image encoders with random weights, forward without gradients and forward with backward, in float32 and
in bfloat16: with the attention of transformers ("sdpa") and with that of aerogel.slim (families/fused.py).
The two take turns within one process, which keeps freed memory as the command line does, so that what else
the machine does meets both. Figures are the ratios of times, their median and range over the repeats, and how
far the embeddings are apart in float32. Writes results.json beside this file and ends its output with that
JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from aerogel.core.allocation import keep_memory
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.slim.families.fused import fusing

HERE = Path(__file__).parent
SMALL = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "mlp_dim": 1536,
    "image_size": 384,
    "global_attn_indexes": list(range(12)),
}
# The zoo's small SAM, and four of the twelve blocks of SAM-B, one of them with attention over the whole
# image, each with the images in a batch.
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "sam_small": (SMALL, 4),
    "sam_b_blocks": ({"num_hidden_layers": 4, "global_attn_indexes": [2]}, 1),
}


def build(changes: dict[str, Any]) -> Any:
    """Return an encoder whose attention and embedding are of some size."""
    encoder = SamModel(SamConfig(vision_config=changes)).vision_encoder.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    return encoder


def clock(work: Callable[[], Any]) -> float:
    """Return the seconds that ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(encoder: Any, pixels: Tensor, half: bool, train: bool, repeats: int) -> dict[str, Any]:
    """Return the ratio of times, transformers' to ours."""

    def look() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.set_grad_enabled(train):
            found = encoder(pixels).last_hidden_state
        if train:
            found.float().square().mean().backward()
            encoder.zero_grad()

    ratios, seconds = [], []
    for repeat in range(repeats + 1):
        plain = clock(look)
        with fusing(encoder):
            ours = clock(look)
        if repeat:
            ratios.append(plain / ours)
            seconds.append(ours)
    return {
        "ratio": round(median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
        "seconds": round(median(seconds), 3),
    }


def measure(changes: dict[str, Any], batch: int, repeats: int) -> dict[str, Any]:
    """Return all figures of one shape of encoder."""
    encoder = build(changes)
    side = int(encoder.config.image_size)
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = encoder(pixels).last_hidden_state
        with fusing(encoder):
            ours = encoder(pixels).last_hidden_state
    found: dict[str, Any] = {"difference": float((ours - plain).abs().max() / plain.std())}
    for half in (False, True):
        for train in (False, True):
            name = f"{'bfloat16' if half else 'float32'}_{'training' if train else 'forward'}"
            found[name] = compare(encoder, pixels, half, train, repeats)
            print(name, found[name], flush=True)
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = {name: measure(*shape, arguments.repeats) for name, shape in SHAPES.items()}
    result = {"figures": figures, "threads": arguments.threads, "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
