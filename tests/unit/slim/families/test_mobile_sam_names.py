"""Each weight has one published name; the pairs and shapes here were written down from the published file."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from aerogel.errors import MismatchError
from aerogel.slim.families.mobile_sam import MobileSamConfig, MobileSamModel
from aerogel.slim.families.mobile_sam_names import LEFT_OUT, publish_name

PAIRS = {
    "vision_encoder.stem.conv1.conv.weight": ("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3)),
    "vision_encoder.stem.conv2.norm.running_var": ("image_encoder.patch_embed.seq.2.bn.running_var", (64,)),
    "vision_encoder.stages.0.blocks.1.expand.conv.weight": (
        "image_encoder.layers.0.blocks.1.conv1.c.weight",
        (256, 64, 1, 1),
    ),
    "vision_encoder.stages.0.blocks.0.depthwise.norm.num_batches_tracked": (
        "image_encoder.layers.0.blocks.0.conv2.bn.num_batches_tracked",
        (),
    ),
    "vision_encoder.stages.0.blocks.0.project.norm.bias": (
        "image_encoder.layers.0.blocks.0.conv3.bn.bias",
        (64,),
    ),
    "vision_encoder.stages.1.merge.depthwise.conv.weight": (
        "image_encoder.layers.1.downsample.conv2.c.weight",
        (160, 1, 3, 3),
    ),
    "vision_encoder.stages.2.merge.project.norm.weight": (
        "image_encoder.layers.2.downsample.conv3.bn.weight",
        (320,),
    ),
    "vision_encoder.stages.2.blocks.5.attention.biases": (
        "image_encoder.layers.2.blocks.5.attn.attention_biases",
        (5, 196),
    ),
    "vision_encoder.stages.3.blocks.0.attention.qkv.weight": (
        "image_encoder.layers.3.blocks.0.attn.qkv.weight",
        (960, 320),
    ),
    "vision_encoder.stages.1.blocks.0.attention.norm.bias": (
        "image_encoder.layers.1.blocks.0.attn.norm.bias",
        (128,),
    ),
    "vision_encoder.stages.1.blocks.0.attention.proj.weight": (
        "image_encoder.layers.1.blocks.0.attn.proj.weight",
        (128, 128),
    ),
    "vision_encoder.stages.1.blocks.0.local.conv.weight": (
        "image_encoder.layers.1.blocks.0.local_conv.c.weight",
        (128, 1, 3, 3),
    ),
    "vision_encoder.stages.1.blocks.1.local.norm.running_mean": (
        "image_encoder.layers.1.blocks.1.local_conv.bn.running_mean",
        (128,),
    ),
    "vision_encoder.stages.1.blocks.1.mlp.norm.weight": (
        "image_encoder.layers.1.blocks.1.mlp.norm.weight",
        (128,),
    ),
    "vision_encoder.stages.1.blocks.1.mlp.lin1.weight": (
        "image_encoder.layers.1.blocks.1.mlp.fc1.weight",
        (512, 128),
    ),
    "vision_encoder.stages.1.blocks.1.mlp.lin2.bias": (
        "image_encoder.layers.1.blocks.1.mlp.fc2.bias",
        (128,),
    ),
    "vision_encoder.neck.conv1.weight": ("image_encoder.neck.0.weight", (256, 320, 1, 1)),
    "vision_encoder.neck.layer_norm1.bias": ("image_encoder.neck.1.bias", (256,)),
    "vision_encoder.neck.conv2.weight": ("image_encoder.neck.2.weight", (256, 256, 3, 3)),
    "vision_encoder.neck.layer_norm2.weight": ("image_encoder.neck.3.weight", (256,)),
    "shared_image_embedding.positional_embedding": (
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        (2, 128),
    ),
    "prompt_encoder.shared_embedding.positional_embedding": (
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        (2, 128),
    ),
    "prompt_encoder.point_embed.3.weight": ("prompt_encoder.point_embeddings.3.weight", (1, 256)),
    "prompt_encoder.no_mask_embed.weight": ("prompt_encoder.no_mask_embed.weight", (1, 256)),
    "prompt_encoder.not_a_point_embed.weight": ("prompt_encoder.not_a_point_embed.weight", (1, 256)),
    "prompt_encoder.mask_embed.conv1.weight": ("prompt_encoder.mask_downscaling.0.weight", (4, 1, 2, 2)),
    "prompt_encoder.mask_embed.layer_norm1.bias": ("prompt_encoder.mask_downscaling.1.bias", (4,)),
    "prompt_encoder.mask_embed.conv2.weight": ("prompt_encoder.mask_downscaling.3.weight", (16, 4, 2, 2)),
    "prompt_encoder.mask_embed.layer_norm2.bias": ("prompt_encoder.mask_downscaling.4.bias", (16,)),
    "prompt_encoder.mask_embed.conv3.bias": ("prompt_encoder.mask_downscaling.6.bias", (256,)),
    "mask_decoder.iou_token.weight": ("mask_decoder.iou_token.weight", (1, 256)),
    "mask_decoder.mask_tokens.weight": ("mask_decoder.mask_tokens.weight", (4, 256)),
    "mask_decoder.transformer.layers.1.layer_norm4.weight": (
        "mask_decoder.transformer.layers.1.norm4.weight",
        (256,),
    ),
    "mask_decoder.transformer.layers.0.mlp.lin1.weight": (
        "mask_decoder.transformer.layers.0.mlp.lin1.weight",
        (2048, 256),
    ),
    "mask_decoder.transformer.layers.0.cross_attn_image_to_token.out_proj.weight": (
        "mask_decoder.transformer.layers.0.cross_attn_image_to_token.out_proj.weight",
        (256, 128),
    ),
    "mask_decoder.transformer.layer_norm_final_attn.bias": (
        "mask_decoder.transformer.norm_final_attn.bias",
        (256,),
    ),
    "mask_decoder.upscale_conv1.weight": ("mask_decoder.output_upscaling.0.weight", (256, 64, 2, 2)),
    "mask_decoder.upscale_layer_norm.weight": ("mask_decoder.output_upscaling.1.weight", (64,)),
    "mask_decoder.upscale_conv2.bias": ("mask_decoder.output_upscaling.3.bias", (32,)),
    "mask_decoder.output_hypernetworks_mlps.2.proj_in.bias": (
        "mask_decoder.output_hypernetworks_mlps.2.layers.0.bias",
        (256,),
    ),
    "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight": (
        "mask_decoder.output_hypernetworks_mlps.2.layers.1.weight",
        (256, 256),
    ),
    "mask_decoder.output_hypernetworks_mlps.3.proj_out.weight": (
        "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight",
        (32, 256),
    ),
    "mask_decoder.iou_prediction_head.proj_in.weight": (
        "mask_decoder.iou_prediction_head.layers.0.weight",
        (256, 256),
    ),
    "mask_decoder.iou_prediction_head.layers.0.bias": (
        "mask_decoder.iou_prediction_head.layers.1.bias",
        (256,),
    ),
    "mask_decoder.iou_prediction_head.proj_out.bias": (
        "mask_decoder.iou_prediction_head.layers.2.bias",
        (4,),
    ),
}


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    with torch.device("meta"):
        weights = MobileSamModel(MobileSamConfig()).state_dict()
    assert {name: publish_name(name) for name in PAIRS} == {name: pair[0] for name, pair in PAIRS.items()}
    assert {name: tuple(weights[name].shape) for name in PAIRS} == {
        name: pair[1] for name, pair in PAIRS.items()
    }
    names = [publish_name(name) for name in weights]
    twice = [name for name, times in Counter(names).items() if times > 1]
    assert twice == ["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    count = Counter(name.partition(".")[0] for name in set(names) | LEFT_OUT)
    assert count == {"image_encoder": 302, "prompt_encoder": 17, "mask_decoder": 120}
    assert not LEFT_OUT & set(names)


def test_other_names_are_refused() -> None:
    with pytest.raises(MismatchError, match="text_encoder"):
        publish_name("text_encoder.layers.0.weight")
