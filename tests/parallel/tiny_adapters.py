"""Tiny UNets with what users add to them: trained adapters, image prompts, reweighted skip connections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig

from tests.parallel.tiny import Denoiser, draw
from tests.parallel.tiny_unets import build_conditional_unet

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]


def add_lora(denoiser: Denoiser) -> Denoiser:
    """Add an adapter of rank 2 to attention and convolutions, at half its strength."""
    model: Any = denoiser.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model.add_adapter(
            LoraConfig(r=2, lora_alpha=2, target_modules=_TARGETS, init_lora_weights=False), "style"
        )
    model.requires_grad_(False)
    return replace(denoiser, conditioning={**denoiser.conditioning, "cross_attention_kwargs": {"scale": 0.5}})


def build_lora_unet() -> Denoiser:
    """Return a UNet with a LoRA adapter at half its strength."""
    return add_lora(build_conditional_unet())


def build_freeu_unet() -> Denoiser:
    """Return a UNet whose skip connections are filtered, and hidden states changed in place (FreeU)."""
    denoiser = build_conditional_unet()
    model: Any = denoiser.model
    model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    return denoiser


def build_image_prompted_unet() -> Denoiser:
    """Return a UNet with an IP-Adapter: attention to image embeddings beside the text."""
    denoiser = build_conditional_unet()
    model: Any = denoiser.model
    width, embedding = 12, 6
    keys = {}
    for place, name in enumerate(model.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = model.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                keys[f"{place}.{part}.weight"] = draw(hidden, width, seed=len(keys)) / width**0.5
    image = {
        "proj.weight": draw(4 * width, embedding, seed=2),
        "proj.bias": draw(4 * width, seed=3),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    model._load_ip_adapter_weights([{"image_proj": image, "ip_adapter": keys}])
    model.requires_grad_(False)
    embeds = {"image_embeds": [draw(2, 1, embedding, seed=4)]}
    return replace(denoiser, conditioning={**denoiser.conditioning, "added_cond_kwargs": embeds})
