"""How well MobileSAM, as loaded here, segments what people outlined in COCO photos.

    python benchmarks/slim-mobilesam/run.py [--data FOLDER] [--photos 30]

FOLDER, by default $AEROGEL_DATA, holds models/mobile_sam.fp16.safetensors and
photos/coco-panoptic-train.parquet (columns image, segments: one label map, 0 for what nobody labelled). Every
labelled object or region above 1 % of its photo is asked for by its box, and by one point, the one farthest
inside by steps to any of the eight neighbours. One mask is asked for (multimask_output=False). The box filled
in is the control that a box prompt has to beat. Figures are means over objects of the intersection over union
at the photo's own resolution; the standard error takes objects for independent, which those of one photo are
not quite. The first photos of the file are taken, and nothing was tuned on them. The encoder's seconds are
the median on one thread, beside whatever else the machine was doing. Writes results.json beside this file and
ends its output with that JSON on one line.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.slim.families.mobile_sam import MobileSamModel, build_processor, load_mobile_sam

HERE = Path(__file__).parent
LEAST_AREA = 0.01
Mask = NDArray[np.bool_]


def read_photos(path: Path, count: int) -> list[tuple[Image.Image, list[Mask]]]:
    """Return the first photos with a mask [H, W] for each labelled region that is large enough."""
    photos = []
    for row in next(pq.ParquetFile(path).iter_batches(count)).to_pylist():
        labels = np.asarray(Image.open(io.BytesIO(row["segments"][0]["bytes"])))
        masks = [labels == value for value in np.unique(labels) if value]
        masks = [mask for mask in masks if mask.mean() > LEAST_AREA]
        photos.append((Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"), masks))
    return photos


def bound(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) of a mask, right and bottom beyond its last pixel."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_inside(mask: Mask) -> tuple[int, int]:
    """Return the pixel (x, y) of a mask that is the last to go when its rim is taken off again and again."""
    rest = functional.pad(torch.from_numpy(mask)[None, None].float(), (1, 1, 1, 1))
    last = rest
    while bool(rest.any()):
        last, rest = rest, -functional.max_pool2d(-rest, 3, 1, 1)
    y, x = (last[0, 0, 1:-1, 1:-1]).nonzero()[0].tolist()
    return x, y


def overlap(one: Mask, other: Mask) -> float:
    """Return the intersection over union of two masks."""
    return float((one & other).sum() / max(1, (one | other).sum()))


@torch.no_grad()
def measure_photo(model: MobileSamModel, image: Image.Image, masks: list[Mask]) -> tuple[list[Any], float]:
    """Return (box, point, filled box) for each mask, and the seconds that the encoder took."""
    processor = build_processor()
    boxes = [bound(mask) for mask in masks]
    inputs = processor(
        images=image,
        input_boxes=[[[float(edge) for edge in box] for box in boxes]],
        input_points=[[[[float(value) for value in find_inside(mask)]] for mask in masks]],
        return_tensors="pt",
    )
    begun = time.perf_counter()
    embeddings = model.get_image_embeddings(inputs["pixel_values"])
    took = time.perf_counter() - begun
    found = []
    for prompt in ("input_boxes", "input_points"):
        output = model(
            image_embeddings=embeddings, multimask_output=False, **{prompt: inputs[prompt].float()}
        )
        found.append(
            processor.image_processor.post_process_masks(
                output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )[0][:, 0].numpy()
        )
    rows = []
    for mask, (left, top, right, bottom), by_box, by_point in zip(masks, boxes, *found, strict=True):
        filled = np.zeros_like(mask)
        filled[top:bottom, left:right] = True
        rows.append((overlap(by_box, mask), overlap(by_point, mask), overlap(filled, mask)))
    return rows, took


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    parser.add_argument("--photos", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_mobile_sam(arguments.data / "models" / "mobile_sam.fp16.safetensors")
    rows: list[Any] = []
    seconds = []
    photos = read_photos(arguments.data / "photos" / "coco-panoptic-train.parquet", arguments.photos)
    for number, (image, masks) in enumerate(photos):
        if masks:
            found, took = measure_photo(model, image, masks)
            rows += found
            seconds.append(took)
        print(f"photo {number}: {len(masks)} objects", flush=True)
    means, spreads = np.mean(rows, 0), np.std(rows, 0, ddof=1) / len(rows) ** 0.5
    figures = {
        name: {"mean_iou": round(float(mean), 4), "standard_error": round(float(error), 4)}
        for name, mean, error in zip(("box", "point", "filled_box"), means, spreads, strict=True)
    }
    for name, figure in figures.items():
        print(f"{name:10s} {figure['mean_iou']:.3f} ± {figure['standard_error']:.3f}")
    result = {
        "figures": figures,
        "objects": len(rows),
        "photos": len(photos),
        "encoder_seconds": round(float(np.median(seconds)), 2),
        "environment": environment(),
    }
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
