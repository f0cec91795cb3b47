"""How well the zoo's small segmenters do beside MobileSAM, on what people outlined in COCO photos.

    python benchmarks/slim-zoo/run.py --small runs/sam-small/model [--data FOLDER] [--work FOLDER]

FOLDER, by default $AEROGEL_DATA, holds models/mobile_sam.fp16.safetensors and
photos/coco-panoptic-train.parquet; --small is what recipes/zoo/train_sam_small.py wrote; aerogel/sam-nano is
judged too where it ships. None of them saw these photos. Every labelled object or region of 1 % of its photo
or more is asked for by a random point of it, by the point farthest from its border and by its box; one mask
is asked for. The box filled in is the control that a box prompt has to beat. Figures are means over objects
of the intersection over union at the photo's own resolution, with 95 % intervals that draw whole photos
again; "kept" is the share of MobileSAM's mean, paired. Writes results.json beside this file and ends its
output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from aerogel.core.allocation import keep_memory
from aerogel.core.environment import environment
from aerogel.core.files import sha256_file
from aerogel.core.folders import write_text_atomic
from aerogel.slim import Evaluation, compare, evaluate, open_model
from aerogel.zoo import SegmentedPhotos, open_segments
from aerogel.zoo.cards import CARDS

HERE = Path(__file__).parent
LEAST_AREA = 0.01
NANO = "aerogel/sam-nano"


def read_kept(ours: Evaluation, theirs: Evaluation) -> dict[str, Any]:
    """Return what share of the other's mean is kept, by prompt, with its interval."""
    return {row.title: row.kept.to_dict() for row in compare(ours, theirs).rows if row.kept is not None}


def fingerprint(source: str) -> str:
    """Return the SHA-256 of a model's weights."""
    if source in CARDS.names():
        return CARDS.get(source).sha256
    return sha256_file(Path(source) if Path(source).is_file() else Path(source) / "model.safetensors")


def obtain(work: Path, name: str, source: str, photos: SegmentedPhotos) -> Evaluation:
    """Return a model's scores, from the work folder if the same weights were judged on as many photos."""
    path = work / f"{name}-{fingerprint(source)[:12]}-{len(photos)}.json"
    if not path.exists():
        found = evaluate(open_model(source), photos, boundary=False, name=name)
        work.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(found.to_dict()))
    return Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))


def main() -> None:
    """Run the benchmark from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    parser.add_argument("--small", help="folder of sam-small; left out without it")
    parser.add_argument("--work", type=Path, default=Path("runs/slim-zoo"), help="scores that are done")
    parser.add_argument("--photos", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = {"mobile_sam": str(arguments.data / "models" / "mobile_sam.fp16.safetensors")}
    if arguments.small:
        sources["sam_small"] = arguments.small
    if NANO in CARDS.names():
        sources["sam_nano"] = NANO
    photos = open_segments(
        arguments.data / "photos" / "coco-panoptic-train.parquet",
        limit=arguments.photos,
        smallest_share=LEAST_AREA,
    )
    figures: dict[str, Any] = {}
    reference: Evaluation | None = None
    for name, source in sources.items():
        found = obtain(arguments.work, name, source, photos)
        reference = reference or found
        figures[name] = {**found.to_dict(per_object=False), "kept": read_kept(found, reference)}
        print(found.table(), flush=True)
    result = {"figures": figures, "environment": environment()}
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
