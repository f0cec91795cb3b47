"""A tiny class-conditional pipeline of random weights, and what it makes."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DModel

from aerogel.zoo.diffusion import ClassConditionalPipeline

CLASSES = ["ape", "bee", "cat"]


def build_pipeline() -> ClassConditionalPipeline:
    """Return a pipeline that draws 1 x 16 x 16 pixels of three classes."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=len(CLASSES) + 1,
    )
    pipe = ClassConditionalPipeline(unet.eval(), DDIMScheduler(), CLASSES, patch_size=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe
