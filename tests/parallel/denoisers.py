"""Tiny denoisers of random weights, one for every way in which diffusers' models pass their tensors on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.parallel import tiny_adapters as adapters
from tests.parallel import tiny_transformers as transformers
from tests.parallel import tiny_unets as unets
from tests.parallel.tiny import Denoiser


@dataclass(frozen=True)
class Case:
    """Name a denoiser and build it."""

    name: str
    build: Callable[[], Denoiser]


CASES = (
    Case("unet", unets.build_unet),
    Case("unet-text", unets.build_conditional_unet),
    Case("unet-controlnet", unets.build_controlled_unet),
    Case("unet-lora", adapters.build_lora_unet),
    Case("unet-freeu", adapters.build_freeu_unet),
    Case("unet-image-prompt", adapters.build_image_prompted_unet),
    Case("unet-text-time", unets.build_text_time_unet),
    Case("unet-spatio-temporal", unets.build_spatio_temporal_unet),
    Case("unet-motion", unets.build_motion_unet),
    Case("unet-3d", unets.build_volume_unet),
    Case("dit", transformers.build_dit),
    Case("pixart", transformers.build_pixart),
    Case("sd3", transformers.build_sd3),
    Case("flux", transformers.build_flux),
    Case("wan", transformers.build_wan),
    Case("hunyuan-dit", transformers.build_hunyuan_dit),
    Case("hunyuan-video", transformers.build_hunyuan_video),
    Case("cogvideox", transformers.build_cogvideox),
    Case("lumina-next", transformers.build_lumina),
    Case("sana", transformers.build_sana),
    Case("auraflow", transformers.build_auraflow),
    Case("ltx", transformers.build_ltx),
    Case("qwen", transformers.build_qwen),
    Case("mochi", transformers.build_mochi),
    Case("lumina2", transformers.build_lumina2),
)
