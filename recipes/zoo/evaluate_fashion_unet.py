"""Count how many pictures that the shipped diffusion model draws are recognised as the class asked for.

    python recipes/zoo/evaluate_fashion_unet.py --data fashion-mnist --work runs/fashion-unet

The judge is a small classifier of its own training, kept in the work folder; its accuracy on the 10,000 test
images is printed beside the shares, and bounds what they can mean. Guidance is chosen on another seed than
the one reported: pass several --guidance with --seed 1, then one with --seed 0. Writes a sheet with one row
for each class to the work folder, and ends its output with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from fashion_classifier import Verdict, judge, obtain_classifier
from PIL import Image
from torch import Tensor

from aerogel.zoo import load_splits
from aerogel.zoo.diffusion import ClassConditionalPipeline, load_pipeline

COLUMNS = 12


def draw(
    pipe: ClassConditionalPipeline, *, per_class: int, steps: int, guidance: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return ``per_class`` pictures of every class, [N, 1, 32, 32] from 0 to 1, and their labels [N]."""
    images: list[Tensor] = []
    labels: list[int] = []
    pipe.set_progress_bar_config(disable=True)
    for number in range(len(pipe.config.class_names)):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        wanted = [number] * per_class
        options: dict[str, Any] = {"generator": generator, "output_type": "pt", "return_dict": False}
        images += pipe(wanted, steps, guidance, **options)
        labels += wanted
    return torch.cat(images), torch.tensor(labels)


def write_sheet(images: Tensor, path: Path) -> None:
    """Write the first pictures of every class as one row each, twice as large."""
    per_class = len(images) // 10
    columns = min(COLUMNS, per_class)
    size = images.shape[-1]
    rows = images.view(10, per_class, size, size)[:, :columns].permute(0, 2, 1, 3)
    sheet = Image.fromarray((rows.reshape(10 * size, columns * size) * 255).round().byte().numpy())
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


def describe(verdict: Verdict, names: tuple[str, ...]) -> str:
    """Say a verdict in one line."""
    parts = [f"{name} {share:.2f}" for name, share in zip(names, verdict.per_class, strict=True)]
    return f"{verdict.share:.1%} recognised: {', '.join(parts)}"


def main() -> None:
    """Run the evaluation from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", default="fashion-mnist", help="named source or folder with the IDX files")
    parser.add_argument("--work", type=Path, required=True, help="folder of the judge and the sheets")
    parser.add_argument("--model", help="folder of a pipeline; default: the one that ships")
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = load_splits(arguments.data)
    classifier = obtain_classifier(arguments.work / "fashion-classifier.safetensors", train)
    accuracy = judge(classifier, test.images.float() / 255, test.labels).share
    print(f"the judge knows {accuracy:.2%} of the test images", flush=True)
    pipe = ClassConditionalPipeline.from_pretrained(arguments.model) if arguments.model else load_pipeline()
    settings = {"per_class": arguments.per_class, "steps": arguments.steps, "seed": arguments.seed}
    shares: dict[str, Verdict] = {}
    for guidance in arguments.guidance:
        started = time.monotonic()
        images, labels = draw(pipe, guidance=guidance, **settings)
        shares[f"{guidance:g}"] = verdict = judge(classifier, images, labels)
        seconds = time.monotonic() - started
        print(f"guidance {guidance:g}: {describe(verdict, test.class_names)} ({seconds:.0f} s)", flush=True)
        write_sheet(images, arguments.work / f"sheet-guidance-{guidance:g}-seed-{arguments.seed}.png")
    recognised = {name: verdict.share for name, verdict in shares.items()}
    print(json.dumps({"judge_accuracy": accuracy, "recognised": recognised, **settings}))


if __name__ == "__main__":
    main()
