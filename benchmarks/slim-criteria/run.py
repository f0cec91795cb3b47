"""Which criterion knows best what the loss of a channel does, on a trained segmenter.

    python benchmarks/slim-criteria/run.py --model runs/sam-small/model [--data FOLDER] [--channels 120]
        [--work FOLDER]

The true damage of a channel is the mean squared error of the image embedding when that channel alone is
masked (LayerNorm's statistics without it), a mean over photos. It is measured for as many channels of each
kind, drawn at random over all blocks; the criteria score the same model on other photos. Figures are
Spearman's rank correlation of score and damage over the channels of a kind, all blocks together, with 95 %
intervals that draw channels again, and the time that scoring took. FOLDER, by default $AEROGEL_DATA, holds
photos/imagenet-samples.parquet. Writes results.json beside this file and ends its output with that JSON. What
is finished is kept in --work, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aerogel.core.config import validate
from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.core.randomness import permutation
from aerogel.slim import Canvas, Channels, describe, identity_plan, mask_channels, open_model, score_channels
from aerogel.slim.digest import digest_model
from aerogel.zoo import open_photos

HERE = Path(__file__).parent
KINDS = ("embedding", "head_dims", "mlp")
CRITERIA = (
    "channel-fisher",
    "disturbed-taylor",
    "disturbed-taylor-as-coded",
    "taylor",
    "magnitude",
    "random",
)


def draw_channels(channels: Channels, count: int) -> dict[str, list[tuple[str, int]]]:
    """Return as many (group, channel) of each kind, drawn over all groups of it."""
    drawn = {}
    for kind in KINDS:
        every = [(group.name, index) for group in channels.of_kind(kind) for index in range(group.size)]
        order = permutation(0, f"ablation/{kind}", 0, len(every))[:count]
        drawn[kind] = [every[place] for place in sorted(order.tolist())]
    return drawn


@torch.inference_mode()
def measure_damage(model: Any, channel: tuple[str, int], images: list[Tensor], whole: list[Tensor]) -> float:
    """Return the mean squared error of the embedding without one channel."""
    plan = identity_plan(describe(model))
    name, index = channel
    kept = {**plan.kept, name: tuple(each for each in plan.kept[name] if each != index)}
    cut = validate(type(plan)(plan.family, "flex", plan.sizes, kept))
    with mask_channels(model, cut):
        errors = [
            (model.get_image_embeddings(image) - clean).square().mean().item()
            for image, clean in zip(images, whole, strict=True)
        ]
    return float(np.mean(errors))


def rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 0, means where values are equal."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def correlate(scores: NDArray[np.float64], damage: NDArray[np.float64]) -> dict[str, float]:
    """Return Spearman's correlation and its 95 % interval, drawing channels again."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(1000):
        drawn = generator.integers(0, len(scores), len(scores))
        values.append(np.corrcoef(rank(scores[drawn]), rank(damage[drawn]))[0, 1])
    low, high = np.nanquantile(values, [0.025, 0.975])
    found = np.corrcoef(rank(scores), rank(damage))[0, 1]
    return {"spearman": round(float(found), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def judge(
    scores: Mapping[str, list[float]], drawn: Mapping[str, list[tuple[str, int]]], damage: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the correlation of scores and damage for each kind of channel."""
    return {
        kind: correlate(np.array([scores[name][index] for name, index in each]), damage[kind])
        for kind, each in drawn.items()
    }


def obtain(path: Path, make: Callable[[], Any]) -> Any:
    """Return what is stored at ``path``; make and store it if there is nothing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(make()))
    return json.loads(path.read_text(encoding="utf-8"))


def score(model: Any, scored: list[Tensor], criterion: str, draws: int) -> dict[str, Any]:
    """Return the scores of all channels by group, and the time that it took."""
    begun = time.perf_counter()
    found = score_channels(model, scored, criterion, seed=0, draws=draws, kinds=KINDS)
    seconds = round(time.perf_counter() - begun, 1)
    return {"scores": {name: each.tolist() for name, each in found.items()}, "seconds": seconds}


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AEROGEL_DATA", ".")))
    parser.add_argument("--channels", type=int, default=120, help="of each kind")
    parser.add_argument("--photos", type=int, default=8, help="that damage is measured on")
    parser.add_argument("--score-photos", type=int, default=64)
    parser.add_argument("--draws", type=int, default=4, help="of noise for each photo")
    parser.add_argument("--work", type=Path, default=Path("runs/slim-criteria"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    counts = (arguments.channels, arguments.photos, arguments.score_photos, arguments.draws)
    work = arguments.work / f"{digest_model(model)[:16]}-{'-'.join(map(str, counts))}"
    canvas = Canvas.of(model)
    source = arguments.data / "photos" / "imagenet-samples.parquet"
    count = arguments.photos + arguments.score_photos
    photos = open_photos(source, image_column="image", limit=count, seed=1, check="header")
    images = [canvas.place(photo.image)[0] for photo in photos]
    shown, scored = images[: arguments.photos], images[arguments.photos :]
    with torch.inference_mode():
        whole = [model.get_image_embeddings(image) for image in shown]
    drawn = draw_channels(describe(model), arguments.channels)
    damage = {}
    for kind, each in drawn.items():
        found = obtain(
            work / f"damage-{kind}.json",
            lambda each=each: [measure_damage(model, channel, shown, whole) for channel in each],
        )
        damage[kind] = np.array(found)
        print(f"{kind}: damage of {len(each)} channels, median {np.median(damage[kind]):.3g}", flush=True)
    figures: dict[str, Any] = {}
    for criterion in CRITERIA:
        made = obtain(
            work / f"scores-{criterion}.json",
            lambda criterion=criterion: score(model, scored, criterion, arguments.draws),
        )
        figures[criterion] = {**judge(made["scores"], drawn, damage), "seconds": made["seconds"]}
        print(f"{criterion}: {figures[criterion]}", flush=True)
    result = {
        "figures": figures,
        "channels": {kind: len(each) for kind, each in drawn.items()},
        "photos": {"damage": len(shown), "scores": len(scored), "draws": arguments.draws},
        "environment": environment(),
    }
    write_text_atomic(HERE / "results.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
