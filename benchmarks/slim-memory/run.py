"""How much memory it takes to slim a SAM-B at 1024 pixels on the CPU.

    python benchmarks/slim-memory/run.py [--photos 3] [--threads 2]

A SAM-B with random weights is slimmed by the command line, `aerogel slim`, at ratio 0.77 on a few of the
shipped photos: every stage runs, with as few steps as there are photos. The figure is the highest resident
memory of the process, model and photos included, in GiB; the bar is 8. Writes results.json beside this file
and ends its output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import SamConfig, SamModel
from transformers.utils import logging

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.measure import measure_command_memory

HERE = Path(__file__).parent
LIMIT_GIB = 8.0


def save_sam(folder: Path) -> None:
    """Save a SAM-B whose random weights give masks of some size."""
    model = SamModel(SamConfig())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    model.save_pretrained(folder)


def main() -> int:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    with TemporaryDirectory() as place:
        folder = Path(place)
        save_sam(folder / "sam-b")
        words = [sys.executable, "-m", "aerogel", "slim", str(folder / "sam-b")]
        words += ["--images", "aerogel/samples", "--limit", str(arguments.photos), "--ratio", "0.77"]
        words += ["--epochs", "1", "--set", "held_out=1", "--set", "score.photos=1", "--device", "cpu"]
        words += ["--set", "align.batch_size=1", "--out", str(folder / "out")]
        begun = time.perf_counter()
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        peak = measure_command_memory(words)
        seconds = time.perf_counter() - begun
    gib = peak.value / 2**30
    figures = {"peak_gib": round(gib, 2), "seconds": round(seconds), "limit_gib": LIMIT_GIB}
    result = {"figures": figures, "photos": arguments.photos, "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0 if gib < LIMIT_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
