"""How well MobileSAM, as loaded here, segments what people outlined in COCO photos.

    python benchmarks/slim-mobilesam/run.py [--data FOLDER] [--photos 30]

FOLDER, by default $AEROGEL_DATA, holds models/mobile_sam.fp16.safetensors and
photos/coco-panoptic-train.parquet (columns image, segments: one label map, 0 for what nobody labelled). Every
labelled object or region of 1 % of its photo or more is asked for by its box, by a random point of it, and by
the point farthest from its border; one mask is asked for. The box filled in is the control that a box prompt
has to beat. Figures are means over objects of the intersection over union at the photo's own resolution, with
95 % intervals that draw whole photos again. Nothing was tuned on these photos. Writes results.json beside
this file and ends its output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.slim import evaluate, load_mobile_sam
from aerogel.zoo import open_segments

HERE = Path(__file__).parent
LEAST_AREA = 0.01


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    parser.add_argument("--photos", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_mobile_sam(arguments.data / "models" / "mobile_sam.fp16.safetensors")
    photos = open_segments(
        arguments.data / "photos" / "coco-panoptic-train.parquet",
        limit=arguments.photos,
        smallest_share=LEAST_AREA,
    )
    found = evaluate(model, photos, boundary=False, name="MobileSAM")
    print(found.table(), flush=True)
    result = {"figures": found.to_dict(per_object=False), "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
