"""Train the backbone that ships in the wheel, from drawn shapes alone: no download, no one's pictures.

    python recipes/zoo/train_shapes_resnet8.py --out src/aerogel/zoo/weights

It learns to name the outline and the texture of procedurally drawn images (aerogel.zoo.shapes), half of each
batch turned grey. Writes the fp16 weights and prints the held-out accuracy that the card quotes.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from aerogel.core.randomness import seed_torch
from aerogel.zoo.resnet8 import ResNet8
from aerogel.zoo.shapes import OUTLINES, TEXTURES, ShapeBatch, draw_shapes

HELD_OUT = 4096


def prepare(batch: ShapeBatch) -> torch.Tensor:
    """Return the batch normalised, every other image turned grey."""
    images = torch.from_numpy(batch.images)
    images[::2] = images[::2].mean(1, keepdim=True)
    return (images - 0.5) / 0.25


def train(
    *, images: int, batch_size: int, lr: float, width: int, seed: int
) -> tuple[ResNet8, dict[str, float]]:
    """Train on ``images`` drawn images, each seen once; return the backbone and its held-out accuracies."""
    with seed_torch(seed):
        backbone = ResNet8(width)
        heads = nn.Linear(4 * width, OUTLINES + TEXTURES)
    model = nn.Sequential(backbone, heads).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    steps = images // batch_size
    for step in range(steps):
        rate = lr * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = draw_shapes(np.arange(batch_size) + HELD_OUT + step * batch_size, seed=seed)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(prepare(batch).contiguous(memory_format=torch.channels_last)).float()
        outlines, textures = logits.split([OUTLINES, TEXTURES], 1)
        loss = functional.cross_entropy(outlines, torch.from_numpy(batch.outlines))
        loss = loss + functional.cross_entropy(textures, torch.from_numpy(batch.textures))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f}", flush=True)
    model.eval()
    held_out = draw_shapes(np.arange(HELD_OUT), seed=seed)
    with torch.no_grad():
        outlines, textures = model(prepare(held_out)).split([OUTLINES, TEXTURES], 1)
    return backbone, {
        "outline_accuracy": float(np.mean(outlines.argmax(1).numpy() == held_out.outlines)),
        "texture_accuracy": float(np.mean(textures.argmax(1).numpy() == held_out.textures)),
    }


def main() -> None:
    """Run the recipe from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    out: Path = arguments.pop("out")
    torch.set_num_threads(1)
    backbone, figures = train(**arguments)
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in backbone.state_dict().items() if "num_batches" not in name}
    weights = {name: value.half().contiguous() for name, value in state.items()}
    save_file(weights, out / "shapes-resnet8.safetensors", {"width": str(arguments["width"])})
    print(json.dumps({**figures, **arguments}))


if __name__ == "__main__":
    main()
