"""How much sooner two processes of one thread each denoise than one process of one thread, and of two.

    python benchmarks/parallel-speed/run.py [--repeats 5] [--model zoo] [--model sd21-shaped]

50 DDIM steps, one of them warm-up, two components, stride 1, on two models: the zoo's class-conditional
U-Net with guidance (batch 2 of 1 x 32 x 32), and a U-Net shaped like Stable Diffusion 2.1's with random
weights (batch 2 of 4 x 32 x 32). Runs alternate between the three kinds within one process, so that all see
the same machine; figures are ratios of medians. Parts are balanced by their measured times. Writes
results.json beside this file and ends its output with that JSON on one line. Wants two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

# Before torch: its threads are made once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

from aerogel.core.environment import environment
from aerogel.core.folders import write_text_atomic
from aerogel.parallel.config import ParallelConfig
from aerogel.parallel.trial import Speed, measure_speed

HERE = Path(__file__).parent
STEPS = 50
BOUND = STEPS / (1 + (STEPS - 1) / 2)


class TextToLatents(DiffusionPipeline):
    """Denoise a fixed latent with guidance on a fixed text: one call of the denoiser per step, of batch 2."""

    def __init__(self, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        generator = torch.Generator().manual_seed(0)
        self.noise = torch.randn(1, 4, 32, 32, generator=generator)
        self.text = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)

    @torch.no_grad()
    def __call__(self, num_inference_steps: int = STEPS, guidance_scale: float = 7.5) -> torch.Tensor:
        """Return the latent [1, 4, 32, 32]."""
        self.scheduler.set_timesteps(num_inference_steps)
        latents = self.noise
        for time in self.scheduler.timesteps:
            both = self.unet(torch.cat([latents] * 2), time, encoder_hidden_states=self.text).sample
            without, with_text = both.chunk(2)
            guided = without + guidance_scale * (with_text - without)
            latents = self.scheduler.step(guided, time, latents).prev_sample
        return latents


def build_sd21_shaped() -> DiffusionPipeline:
    """Return a pipeline around a U-Net of Stable Diffusion 2.1's shape at 0.3 of its width."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(96, 192, 384, 384),
        layers_per_block=2,
        cross_attention_dim=256,
        attention_head_dim=(3, 6, 12, 12),
        use_linear_projection=True,
    )
    return TextToLatents(unet.eval(), DDIMScheduler())


def build_zoo() -> Any:
    """Return the zoo's pipeline."""
    from aerogel.zoo.diffusion import load_pipeline

    pipe = load_pipeline("aerogel/fashion-unet")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def time_model(name: str, repeats: int) -> dict[str, Any]:
    """Return the figures of one model."""
    if name == "zoo":
        pipe = build_zoo()

        def draw() -> Any:
            seeded = torch.Generator().manual_seed(0)
            return pipe([0], num_inference_steps=STEPS, generator=seeded, output_type="np")
    else:
        pipe = build_sd21_shaped()
        draw = pipe
    config = ParallelConfig(components=2, warmup=1, balance="measured", threads=1)
    speed, run = measure_speed(pipe, draw, config, repeats=repeats)
    (lane,) = run.stats.lanes
    figures = {
        "speedup_vs_same_threads": round(speed.over_alone, 3),
        "speedup_vs_all_threads": round(speed.over_all_threads, 3),
        "predicted_speedup": round(lane.predicted_speedup, 3),
        "bound": round(BOUND, 3),
        "bytes_per_round": lane.bytes_per_round,
        "balance": round(lane.balance, 4),
        "seconds": {kind: [round(each, 3) for each in getattr(speed, kind)] for kind in vars(speed)},
    }
    report(name, figures, speed)
    print(run.plan, flush=True)
    return figures


def report(name: str, figures: dict[str, Any], speed: Speed) -> None:
    """Print one model's figures for people."""
    print(
        f"{name}: {median(speed.alone):.2f} s alone, {median(speed.all_threads):.2f} s with two threads, "
        f"{median(speed.parallel):.2f} s on two processes: {figures['speedup_vs_same_threads']:.2f} and "
        f"{figures['speedup_vs_all_threads']:.2f} times sooner (bound {BOUND:.2f}), "
        f"{figures['bytes_per_round'] / 1e6:.2f} MB per round",
        flush=True,
    )


def main() -> None:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", action="append", choices=("zoo", "sd21-shaped"))
    arguments = parser.parse_args()
    results = HERE / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"figures": {}}
    for name in arguments.model or ("zoo", "sd21-shaped"):
        found["figures"][name.replace("-", "_")] = time_model(name, arguments.repeats)
    found["environment"] = environment()
    write_text_atomic(results, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
