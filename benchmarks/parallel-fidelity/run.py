"""How like the pictures of several devices are to those sampled in turn, beside fewer steps in equal time.

    python benchmarks/parallel-fidelity/run.py --data fashion-mnist [--samples 200] [--work FOLDER]

The zoo's class-conditional model draws the same noise under every setting, 50 DDIM steps, guidance as
shipped: in turn, and as N devices would at stride S after w warm-up steps (by the simulator, which gives
the very pictures of the processes: see benchmarks/parallel-exact). The honest control of each setting is
sampling in turn with as few steps as end in the same time, by the bound T / (w + (T - w) m / S) of the
setting's own division. Compared with the pictures of 50 steps in turn: PSNR and SSIM picture by picture,
the share that a classifier of its own training recognises as the class asked for, and the Fréchet distance
on that classifier's 128 features. Writes results.json beside this file and ends its output with that JSON
on one line; a killed run continues. --part I/K computes every K-th setting and writes no results: several
processes may so share the work, before a last one without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.measure import frechet_distance, psnr, ssim
from aerogel.parallel import simulate
from aerogel.zoo import load_splits
from aerogel.zoo.diffusion import ClassConditionalPipeline, load_pipeline

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "recipes" / "zoo"))

from fashion_classifier import FashionClassifier, judge, obtain_classifier  # noqa: E402

MODEL = "aerogel/fashion-unet"
STEPS = 50
FEATURES = "128 features of a small Fashion-MNIST classifier"
BATCH = 50


@dataclass(frozen=True)
class Setting:
    """Name one way to sample; one component is in turn."""

    components: int
    stride: int
    warmup: int
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Return the name under which its pictures are kept."""
        if self.components == 1:
            return f"steps{self.steps}"
        return f"n{self.components}s{self.stride}w{self.warmup}"


SETTINGS = [Setting(n, s, w) for n in (2, 3, 4) for s in (1, 2) for w in (1, 3, 5, 9)]


def draw(pipe: ClassConditionalPipeline, setting: Setting, samples: int) -> tuple[Tensor, float]:
    """Return ``samples`` pictures [N, 1, 32, 32], classes in turn, and the setting's predicted speed-up."""
    generator = torch.Generator().manual_seed(0)
    side = pipe.unet.config.sample_size
    noise = torch.randn(samples, pipe.unet.config.in_channels, side, side, generator=generator)
    labels = [number % 10 for number in range(samples)]

    def sample() -> Tensor:
        parts = [
            pipe(
                labels[at : at + BATCH], setting.steps, latents=noise[at : at + BATCH], output_type="pt"
            ).images
            for at in range(0, samples, BATCH)
        ]
        return torch.cat(parts)

    if setting.components == 1:
        return sample(), STEPS / setting.steps
    with simulate(pipe, setting.components, stride=setting.stride, warmup=setting.warmup) as run:
        pictures = sample()
        return pictures, min(lane.predicted_speedup for lane in run.stats.lanes)


def obtain(
    pipe: ClassConditionalPipeline, setting: Setting, samples: int, work: Path
) -> tuple[Tensor, float]:
    """Return a setting's pictures and speed-up, from ``work`` if they are there."""
    path = work / f"{setting.name}-{samples}.npz"
    if not path.exists():
        pictures, speedup = draw(pipe, setting, samples)
        draft = path.with_suffix(".draft.npz")
        np.savez(draft, pictures=pictures.numpy(), speedup=speedup)
        draft.rename(path)
        print(f"{setting.name}: drawn", flush=True)
    with np.load(path) as stored:
        return torch.from_numpy(stored["pictures"]), float(stored["speedup"])


def compare(pictures: Tensor, reference: Tensor, judge_model: FashionClassifier) -> dict[str, Any]:
    """Return the likeness of ``pictures`` to ``reference``."""
    labels = torch.arange(len(pictures)) % 10
    with torch.no_grad():
        ours, theirs = (judge_model.features(each) for each in (pictures, reference))
        agreement = (judge_model(pictures).argmax(1) == judge_model(reference).argmax(1)).float().mean()
    likeness = {"psnr_db": psnr(pictures, reference), "ssim": ssim(pictures, reference)}
    return {
        **{name: {"mean": found.value, "std": found.spread} for name, found in likeness.items()},
        "recognised": judge(judge_model, pictures, labels).share,
        "classifier_agreement": float(agreement),
        "frechet_distance": frechet_distance(ours, theirs, features_name=FEATURES).value,
    }


def tabulate(name: str, row: dict[str, Any]) -> str:
    """Return one line for people."""
    likeness = row["psnr_db"]
    return (
        f"{name:8s} {row['speedup']:5.2f} x  PSNR {likeness['mean']:5.1f} ± {likeness['std']:4.1f} dB  "
        f"SSIM {row['ssim']['mean']:.3f}  recognised {row['recognised']:.3f}  "
        f"Fréchet {row['frechet_distance']:.2f}"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", default="fashion-mnist", help="named source or folder with the IDX files")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/parallel-fidelity"))
    parser.add_argument("--part", default="0/1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(MODEL)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    index, parts = map(int, arguments.part.split("/"))
    drawn = {}
    for setting in SETTINGS[index::parts]:
        pictures, speedup = obtain(pipe, setting, arguments.samples, arguments.work)
        control = Setting(1, 1, 1, max(1, round(STEPS / speedup)))
        fewer, _ = obtain(pipe, control, arguments.samples, arguments.work)
        drawn[setting] = pictures, fewer, control, speedup
    if parts > 1:
        return
    reference, _ = obtain(pipe, Setting(1, 1, 1), arguments.samples, arguments.work)
    train, _ = load_splits(arguments.data)
    judge_model = obtain_classifier(arguments.work / "classifier.safetensors", train)
    figures: dict[str, Any] = {"sequential": compare(reference, reference, judge_model)}
    for setting, (pictures, fewer, control, speedup) in drawn.items():
        row = {"speedup": round(speedup, 3), **compare(pictures, reference, judge_model)}
        equal = {"speedup": STEPS / control.steps, **compare(fewer, reference, judge_model)}
        figures[setting.name] = {**row, "fewer_steps": {"steps": control.steps, **equal}}
        print(tabulate(setting.name, row), flush=True)
        print(tabulate(control.name, equal), flush=True)
    found = {
        "figures": figures,
        "samples": arguments.samples,
        "features": FEATURES,
        "environment": environment(),
    }
    write_text_atomic(HERE / "results.json", json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
