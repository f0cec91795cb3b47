"""SAM-HQ: SAM's encoder, and a mask decoder that also reads the residual stream of the global blocks."""

from __future__ import annotations

from aerogel.slim.channels import Axis
from aerogel.slim.families.sam import SamFamily

SAM_HQ = SamFamily(
    "sam_hq",
    "SamHQ",
    "transformers.models.sam_hq.modeling_sam_hq",
    "aerogel.slim.families.flex_sam_hq",
    # A transposed convolution: its input is axis 0.
    readers=(Axis("mask_decoder.compress_vit_conv1.weight", 0),),
    decoder_width="vit_dim",
)
