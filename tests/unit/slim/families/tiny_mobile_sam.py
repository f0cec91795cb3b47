"""A MobileSAM of a few thousand weights, and its checkpoint under the published names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aerogel.slim.families.mobile_sam import MobileSamConfig, MobileSamModel, MobileSamVisionConfig
from aerogel.slim.families.mobile_sam_names import publish_name
from aerogel.slim.families.tiny_vit import TinyVitConfig

SHAPE = TinyVitConfig(
    embed_dims=(4, 8, 12, 16),
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 3, 2),
    window_sizes=(3, 3, 3, 5),
    output_channels=32,
)
SIZE = 64


def draw_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and every statistic a random value, so that none can be swapped unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                tensor.fill_(int(torch.randint(1, 99, (), generator=generator)))
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim == 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2 + 0.5)
            else:
                spread = max(1, tensor[0].numel()) ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
    return module


def make_config() -> MobileSamConfig:
    """Return a configuration for images of 64 pixels and a decoder of 32 channels."""
    vision = MobileSamVisionConfig(
        embed_dims=SHAPE.embed_dims,
        depths=SHAPE.depths,
        num_heads=SHAPE.num_heads,
        window_sizes=SHAPE.window_sizes,
        output_channels=32,
        image_size=SIZE,
        num_pos_feats=16,
    )
    return MobileSamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": SIZE, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 24,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 20,
        },
    )


def make_model(seed: int = 0) -> MobileSamModel:
    """Return a model of that configuration with random weights, in evaluation mode."""
    model = MobileSamModel(make_config())
    draw_weights(model, seed)
    ready: MobileSamModel = model.eval()
    return ready


def publish(model: MobileSamModel) -> dict[str, Tensor]:
    """Return the model's weights under the published names, with a classifier as published."""
    weights = {publish_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    weights["image_encoder.norm_head.weight"] = torch.ones(16)
    weights["image_encoder.norm_head.bias"] = torch.zeros(16)
    weights["image_encoder.head.weight"] = torch.ones(10, 16)
    weights["image_encoder.head.bias"] = torch.zeros(10)
    return weights


def write_checkpoint(path: Path, weights: dict[str, Tensor]) -> Path:
    """Write weights as safetensors and return their path."""
    save_file(weights, path)
    return path
