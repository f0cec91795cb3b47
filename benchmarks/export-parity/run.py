"""How far exported graphs are from torch, on MobileSAM as published, and what they weigh.

    python benchmarks/export-parity/run.py [--data FOLDER]

FOLDER, by default $AEROGEL_DATA, holds models/mobile_sam.fp16.safetensors. It is exported in float32, float16
and 8 bit, with points and with boxes, and every graph runs beside the torch model on shipped photos with
random prompts. Figures: the largest difference of an output as a share of its spread, the mean intersection
over union of masks for which graphs did all of the work with those of torch, the smallest of them, and bytes.
Writes results.json beside this file and ends its output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.export import export_onnx
from aerogel.slim import load_mobile_sam

HERE = Path(__file__).parent
VARIANTS = ("fp32", "fp16", "q8")


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_mobile_sam(arguments.data / "models" / "mobile_sam.fp16.safetensors")
    with TemporaryDirectory() as place:
        done = export_onnx(model, Path(place) / "onnx", dtype="float16", quantise=True)
    figures = {
        variant: {
            "worst_share": done.parity.find_worst(variant).share,
            "masks": {
                each.graph: {"iou": each.iou, "smallest": each.smallest, "masks": each.masks}
                for each in done.parity.agreements
                if each.variant == variant
            },
        }
        for variant in VARIANTS
    }
    result = {"figures": figures, "bytes": dict(done.files), "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
