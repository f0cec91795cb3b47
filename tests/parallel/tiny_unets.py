"""Tiny UNets of random weights."""

from __future__ import annotations

import torch
from diffusers.models import unets

from tests.parallel.tiny import FLOAT_TIMES, WHOLE_TIMES, Denoiser, draw, randomize


def build_unet() -> Denoiser:
    """Return a plain UNet with self-attention."""
    model = unets.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return Denoiser(randomize(model), draw(2, 3, 8, 8), WHOLE_TIMES)


_CROSS = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
}
_CROSS_2D = {
    **_CROSS,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def build_conditional_unet() -> Denoiser:
    """Return a UNet as in Stable Diffusion 1."""
    model = unets.UNet2DConditionModel(**_CROSS_2D)
    return Denoiser(
        randomize(model), draw(2, 4, 8, 8), WHOLE_TIMES, {"encoder_hidden_states": draw(2, 5, 12, seed=2)}
    )


def build_controlled_unet() -> Denoiser:
    """Return the same with what a ControlNet adds to its skip connections."""
    plain = build_conditional_unet()
    shapes = ((16, 8), (16, 8), (16, 4), (32, 4))
    residuals = tuple(draw(2, width, size, size, seed=3 + width) for width, size in shapes)
    extra = {
        "down_block_additional_residuals": residuals,
        "mid_block_additional_residual": draw(2, 32, 4, 4, seed=4),
    }
    return Denoiser(plain.model, plain.noise, plain.times, {**plain.conditioning, **extra})


def build_text_time_unet() -> Denoiser:
    """Return a UNet as in Stable Diffusion XL."""
    types = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    model = unets.UNet2DConditionModel(
        **{**_CROSS_2D, **types},
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 10,
    )
    sizes = torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]] * 2)
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "added_cond_kwargs": {"text_embeds": draw(2, 10, seed=3), "time_ids": sizes},
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), WHOLE_TIMES, conditioning)


def build_spatio_temporal_unet() -> Denoiser:
    """Return a video UNet as in Stable Video Diffusion."""
    model = unets.UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12,
        cross_attention_dim=12,
        num_attention_heads=(2, 4),
        num_frames=2,
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 1, 12, seed=2),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }
    return Denoiser(randomize(model), draw(1, 2, 4, 4, 4), FLOAT_TIMES, conditioning)


def build_motion_unet() -> Denoiser:
    """Return a video UNet as in AnimateDiff."""
    model = unets.UNetMotionModel(
        **_CROSS,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        num_attention_heads=2,
        motion_num_attention_heads=2,
    )
    return Denoiser(
        randomize(model), draw(1, 4, 2, 4, 4), WHOLE_TIMES, {"encoder_hidden_states": draw(2, 5, 12, seed=2)}
    )


def build_volume_unet() -> Denoiser:
    """Return a video UNet as in ModelScope's text-to-video."""
    model = unets.UNet3DConditionModel(
        **_CROSS,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=4,
    )
    return Denoiser(
        randomize(model), draw(1, 4, 2, 4, 4), WHOLE_TIMES, {"encoder_hidden_states": draw(1, 5, 12, seed=2)}
    )
