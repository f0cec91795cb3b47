"""SAM with widths of its own in every block, saved and loaded like any model of transformers."""

from __future__ import annotations

from typing import Any

from aerogel.slim.families.family import report_absence
from aerogel.slim.families.flexing import narrow, narrow_whole, take_config_, widen_blocks_

try:
    from transformers.models.sam.configuration_sam import SamConfig, SamVisionConfig
    from transformers.models.sam.modeling_sam import SamModel, SamVisionEncoder, SamVisionModel
except ImportError as missing:
    raise report_absence() from missing


class FlexSamVisionConfig(SamVisionConfig):
    """Say the widths of each block, beside what the stock config says.

    ``hidden_size`` is the width of the residual stream; ``num_attention_heads`` and ``mlp_dim`` are those of
    the widest block.
    """

    model_type = "aerogel_sam_vision_model"

    heads_per_block: list[int] | None = None
    head_dim_per_block: list[int] | None = None
    mlp_dim_per_block: list[int] | None = None


class FlexSamConfig(SamConfig):
    """Hold the parts of a Sam whose vision encoder has widths of its own in every block."""

    model_type = "aerogel_sam"
    sub_configs_defaults = {**SamConfig.sub_configs_defaults, "vision_config": FlexSamVisionConfig}  # type: ignore[dict-item]  # noqa: RUF012


class FlexSamVisionEncoder(SamVisionEncoder):
    """Encode images with blocks of different widths."""

    config_class = FlexSamVisionConfig

    def __init__(self, config: Any) -> None:
        """Build the encoder's blocks to the widths that the config says."""
        super().__init__(narrow(config))
        widen_blocks_(self, config)
        self.post_init()  # type: ignore[no-untyped-call]


class FlexSamVisionModel(SamVisionModel):
    """Hold a flexible vision encoder alone."""

    config_class = FlexSamVisionConfig

    def __init__(self, config: Any) -> None:
        """Build the encoder to the widths that the config says."""
        super().__init__(narrow(config, blocks=0))
        take_config_(self, config)
        self.vision_encoder = FlexSamVisionEncoder(config)
        self.post_init()  # type: ignore[no-untyped-call]


class FlexSamModel(SamModel):
    """Segment like SamModel, with a vision encoder whose blocks have different widths."""

    config_class = FlexSamConfig

    def __init__(self, config: Any) -> None:
        """Build the model to the widths that the config says."""
        super().__init__(narrow_whole(config))
        take_config_(self, config)
        self.vision_encoder = FlexSamVisionEncoder(config.vision_config)
        self.post_init()  # type: ignore[no-untyped-call]
