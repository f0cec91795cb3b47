"""The names of MobileSAM's weights, here and in the published checkpoint."""

from __future__ import annotations

import re

from aerogel.errors import MismatchError, compose

# The published checkpoint also holds TinyViT's ImageNet classifier, which no mask depends on.
LEFT_OUT = frozenset(
    f"image_encoder.{part}.{kind}" for part in ("norm_head", "head") for kind in ("weight", "bias")
)

# Our names to the published ones within each part, one replacement after the other.
_ENCODER = (
    (r"^stem\.conv1\.", "patch_embed.seq.0."),
    (r"^stem\.conv2\.", "patch_embed.seq.2."),
    (r"^stages\.", "layers."),
    (r"\.merge\.", ".downsample."),
    (r"\.expand\.", ".conv1."),
    (r"\.depthwise\.", ".conv2."),
    (r"\.project\.", ".conv3."),
    (r"\.local\.", ".local_conv."),
    (r"(seq\.\d|conv\d|local_conv)\.conv\.", r"\1.c."),
    (r"(seq\.\d|conv\d|local_conv)\.norm\.", r"\1.bn."),
    (r"\.attention\.biases$", ".attn.attention_biases"),
    (r"\.attention\.", ".attn."),
    (r"\.mlp\.lin", ".mlp.fc"),
    (r"^neck\.conv1\.", "neck.0."),
    (r"^neck\.layer_norm1\.", "neck.1."),
    (r"^neck\.conv2\.", "neck.2."),
    (r"^neck\.layer_norm2\.", "neck.3."),
)
_PROMPTS = (
    (r"^shared_embedding\.positional_embedding$", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"^point_embed\.", "point_embeddings."),
    (r"^mask_embed\.conv1\.", "mask_downscaling.0."),
    (r"^mask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"^mask_embed\.conv2\.", "mask_downscaling.3."),
    (r"^mask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"^mask_embed\.conv3\.", "mask_downscaling.6."),
)
_DECODER = (
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"(layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^upscale_conv1\.", "output_upscaling.0."),
    (r"^upscale_layer_norm\.", "output_upscaling.1."),
    (r"^upscale_conv2\.", "output_upscaling.3."),
    # The heads have three layers. The second goes first: what the others become looks like its name.
    (r"^(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"^(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"^(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
)
_PARTS = {
    "vision_encoder": ("image_encoder", _ENCODER),
    "prompt_encoder": ("prompt_encoder", _PROMPTS),
    "mask_decoder": ("mask_decoder", _DECODER),
}


def publish_name(name: str) -> str:
    """Return the published name of the weight that ``MobileSamModel`` calls ``name``.

    The positional encoding, which image and prompts share, has two names here and one there.

    Raises:
        MismatchError: no part of a MobileSAM has weights of such a name.
    """
    if name == "shared_image_embedding.positional_embedding":
        name = "prompt_encoder.shared_embedding.positional_embedding"
    part, _, rest = name.partition(".")
    if part not in _PARTS:
        raise MismatchError(
            compose(f"a weight of {', '.join(_PARTS)}", name, "rename the weights of a MobileSamModel only")
        )
    published, rules = _PARTS[part]
    for pattern, replacement in rules:
        rest = re.sub(pattern, replacement, rest)
    return f"{published}.{rest}"
