"""Image networks of random weights, one per family, as a downloaded one lies on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.unit.condense import tiny

SIDE = 16
WORDS = {
    "vocab_size": 16,
    "max_position_embeddings": 12,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
PLAIN = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
TOWER = {**PLAIN, "intermediate_size": 12}
PATCHES = {"image_size": SIDE, "patch_size": 4}
WINDOWS = {
    **PATCHES,
    "patch_size": 2,
    "embed_dim": 4,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
STAGES = {"hidden_sizes": [4, 6], "depths": [1, 1]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {**TOWER, **PATCHES}),
    "deit": ("DeiT", {**TOWER, **PATCHES}),
    "beit": ("Beit", {**TOWER, **PATCHES, "use_relative_position_bias": True}),
    "dinov2": ("Dinov2", {**PLAIN, **PATCHES}),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**PLAIN, **PATCHES, "num_register_tokens": 3}),
    "swin": ("Swin", WINDOWS),
    "swinv2": ("Swinv2", WINDOWS),
    "resnet": ("ResNet", {"hidden_sizes": [16, 24], "depths": [1, 1], "embedding_size": 8}),
    "convnext": ("ConvNext", {**STAGES, "num_stages": 2, "patch_size": 2, "image_size": SIDE}),
    "convnextv2": ("ConvNextV2", {**STAGES, "num_stages": 2, "patch_size": 2, "image_size": SIDE}),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.1, "finegrained_output": False, "min_depth": 4}),
    "efficientnet": (
        "EfficientNet",
        {
            "width_coefficient": 0.1,
            "depth_coefficient": 1.0,
            "hidden_dim": 128,
            "image_size": SIDE,
            "in_channels": [8, 8],
            "out_channels": [8, 12],
            "kernel_sizes": [3, 5],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
        },
    ),
    "siglip": (
        "Siglip",
        {"text_config": {**TOWER, **WORDS, "projection_size": 8}, "vision_config": {**TOWER, **PATCHES}},
    ),
    "siglip2": (
        "Siglip2",
        {
            "text_config": {**TOWER, **WORDS, "projection_size": 8},
            "vision_config": {**TOWER, "num_patches": 16, "patch_size": 4},
        },
    ),
}
CONVOLUTIONAL = ("resnet", "convnext", "convnextv2", "mobilenet_v2", "efficientnet")


def write_network(folder: Path, kind: str, *, processor: bool = True, **changes: Any) -> Path:
    """Write the network called ``kind``, and a processor that scales and normalises."""
    import transformers

    if kind == "clip":
        tiny.write_clip(folder, size=SIDE)
    else:
        name, settings = MODELS[kind]
        config = getattr(transformers, f"{name}Config")(**{**settings, **changes})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, f"{name}Model")(config).eval()
            stir(model)
        model.save_pretrained(folder)
        if kind.startswith("siglip"):
            # SigLIP 2 has a tokenizer class of its own, which splits words.
            tiny.write_tokenizer(folder, letters="bdr" if kind == "siglip2" else "")
    if processor:
        write_processor(folder, "Siglip2" if kind == "siglip2" else "ViT")
    return folder


def stir(model: nn.Module) -> None:
    """Draw weights and statistics so large that every layer matters."""
    known = {"logit_scale": 3.0, "logit_bias": -2.0}
    for name, parameter in model.named_parameters():
        if name in known:
            nn.init.constant_(parameter, known[name])
        elif "conv" in name and parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        elif parameter.ndim > 1 or "lambda" in name:
            nn.init.normal_(parameter, std=0.3)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
        elif name.endswith("weight"):
            nn.init.ones_(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.2, 0.6)


def write_processor(folder: Path, kind: str = "ViT", **changes: Any) -> None:
    """Write the config of an image processor."""
    settings = {
        "image_processor_type": f"{kind}ImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
        **({"patch_size": 4, "max_num_patches": 16} if kind == "Siglip2" else {}),
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def draw(size: int = SIDE, count: int = 3) -> torch.Tensor:
    """Return random images in [0, 1] whose values are whole eights of 255, as processors read them."""
    whole = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return whole.float() / 255.0
