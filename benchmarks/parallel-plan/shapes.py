"""Published denoisers as shapes: their configurations, the inputs of one call, and their parameter counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import models
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Describe one denoiser at one input size.

    ``parameters_m`` is its published parameter count in millions. ``known`` are the best divisions known
    before, by the number of components: traffic in MB (1e6 bytes) per step, and balance. There are none for
    those that are listed for users only. ``published_mb`` is what the published code broadcasts; it was
    counted on that code, once, not here.
    """

    title: str
    size: str
    parameters_m: float
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]
    components: tuple[int, ...] = (2, 4, 8)
    known: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    published_mb: Mapping[int, float] = field(default_factory=dict)

    def model(self, dtype: torch.dtype = torch.float16) -> nn.Module:
        """Return the denoiser without memory."""
        with torch.device("meta"):
            return self.build().to(dtype).eval()


def _tensor(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _time(batch: int = 1) -> Tensor:
    return _tensor(batch, dtype=torch.float32)


_SD = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_SD2 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,
}
_SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
_WAN = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "ffn_dim": 8960,
    "num_layers": 30,
    "text_dim": 4096,
}


def _unet_inputs(size: int, width: int, **more: Any) -> dict[str, Any]:
    text = _tensor(2, 77, width)
    return {"sample": _tensor(2, 4, size, size), "timestep": _time(), "encoder_hidden_states": text, **more}


def _sdxl_inputs() -> dict[str, Any]:
    return _unet_inputs(
        128, 2048, added_cond_kwargs={"text_embeds": _tensor(2, 1280), "time_ids": _tensor(2, 6)}
    )


def _svd_inputs() -> dict[str, Any]:
    return {
        "sample": _tensor(2, 25, 8, 72, 128),
        "timestep": _time(),
        "encoder_hidden_states": _tensor(2, 1, 1024),
        "added_time_ids": _tensor(2, 3),
    }


def _sd3_inputs() -> dict[str, Any]:
    return {
        "hidden_states": _tensor(2, 16, 128, 128),
        "encoder_hidden_states": _tensor(2, 333, 4096),
        "pooled_projections": _tensor(2, 2048),
        "timestep": _time(2),
    }


def _flux_inputs() -> dict[str, Any]:
    return {
        "hidden_states": _tensor(1, 4096, 64),
        "encoder_hidden_states": _tensor(1, 512, 4096),
        "pooled_projections": _tensor(1, 768),
        "timestep": _time(),
        "guidance": _time(),
        "img_ids": _tensor(4096, 3),
        "txt_ids": _tensor(512, 3),
    }


def _wan_inputs() -> dict[str, Any]:
    return {
        "hidden_states": _tensor(1, 16, 21, 60, 104),
        "timestep": _time(),
        "encoder_hidden_states": _tensor(1, 512, 4096),
    }


SHAPES = {
    "sd15": Shape(
        "Stable Diffusion 1.5",
        "512 x 512, guidance batch 2",
        859.5,
        lambda: models.UNet2DConditionModel(**_SD),
        lambda: _unet_inputs(64, 768),
        (2, 3, 4),
        {2: (3.9, 1.011), 3: (20.3, 1.026), 4: (28.5, 1.049)},
        {2: 64.9, 3: 72.8, 4: 64.9},
    ),
    "sd21": Shape(
        "Stable Diffusion 2.1",
        "768 x 768, guidance batch 2",
        865.9,
        lambda: models.UNet2DConditionModel(**_SD2),
        lambda: _unet_inputs(96, 1024),
        (2, 3, 4),
        {2: (8.8, 1.013), 3: (56.0, 1.025), 4: (66.4, 1.028)},
        {2: 146.0, 3: 128.0, 4: 187.0},
    ),
    "sdxl": Shape(
        "Stable Diffusion XL",
        "1024 x 1024, guidance batch 2",
        2567.5,
        lambda: models.UNet2DConditionModel(**_SDXL),
        _sdxl_inputs,
        (2, 3, 4),
        {2: (28.8, 1.008), 3: (23.6, 1.024), 4: (49.8, 1.020)},
        {2: 257.0, 3: 257.0, 4: 276.0},
    ),
    "svd": Shape(
        "Stable Video Diffusion XT",
        "25 frames of 1024 x 576, guidance batch 2",
        1524.6,
        lambda: models.UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
        _svd_inputs,
    ),
    "sd3": Shape(
        "Stable Diffusion 3 medium",
        "1024 x 1024, guidance batch 2",
        2028.3,
        lambda: models.SD3Transformer2DModel(**_SD3),
        _sd3_inputs,
    ),
    "flux": Shape(
        "FLUX.1-dev",
        "1024 x 1024, batch 1",
        11901.4,
        lambda: models.FluxTransformer2DModel(guidance_embeds=True),
        _flux_inputs,
    ),
    "wan": Shape(
        "Wan 2.1 1.3B",
        "81 frames of 832 x 480, batch 1, one of two calls",
        1419.0,
        lambda: models.WanTransformer3DModel(**_WAN),
        _wan_inputs,
    ),
}
