"""Sample one picture of each class on two processes, in turn and in parallel; nothing is downloaded.

Run it as it stands, and it starts a worker; or as ``torchrun --nproc-per-node 2
examples/sample_parallel.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

import aerogel
from aerogel.zoo import load_pipeline

pipe = load_pipeline("aerogel/fashion-unet")
pipe.set_progress_bar_config(disable=True)
classes = pipe.config.class_names


def sample() -> Tensor:
    """Return a picture [10, 1, 32, 32] of each class."""
    noise = torch.Generator().manual_seed(0)
    return pipe(classes, num_inference_steps=10, generator=noise, output_type="pt").images


in_turn = sample()
with aerogel.parallelize(pipe, warmup=3) as run:
    parallel = sample()

print(run.plan)
print(run.stats)
print(f"mean difference of a pixel: {(parallel - in_turn).abs().mean().item():.4f} of 1")
