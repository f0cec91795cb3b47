"""Build encoders whose blocks have different widths out of transformers' own blocks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from aerogel.errors import ConfigError, compose


def narrow(config: Any, blocks: int | None = None) -> Any:
    """Return a copy of a vision config whose blocks cost next to nothing, to be replaced afterwards.

    Raises:
        ConfigError: the config does not say the widths of each block.
    """
    lists = (config.heads_per_block, config.head_dim_per_block, config.mlp_dim_per_block)
    if any(
        each is None or len(each) != config.num_hidden_layers or min(each, default=1) < 1 for each in lists
    ):
        raise ConfigError(
            compose(
                "heads_per_block, head_dim_per_block and mlp_dim_per_block, each of "
                f"{config.num_hidden_layers} numbers above 0",
                ", ".join("none" if each is None else str(list(each)) for each in lists),
                "load a config that a slimmed model was saved with",
            )
        )
    slender = copy.deepcopy(config)
    slender.num_attention_heads = 1
    slender.mlp_dim = 1
    if blocks is not None:
        slender.num_hidden_layers = blocks
        slender.heads_per_block = slender.head_dim_per_block = slender.mlp_dim_per_block = []
    return slender


def narrow_whole(config: Any) -> Any:
    """Return a copy of a model's config whose vision encoder costs next to nothing."""
    slender = copy.copy(config)
    slender.vision_config = narrow(config.vision_config, blocks=0)
    return slender


def take_config_(model: Any, config: Any) -> None:
    """Give a model that was built from a narrow copy of ``config`` the config itself."""
    config._attn_implementation = model.config._attn_implementation
    model.config = config


def widen_blocks_(encoder: Any, config: Any) -> None:
    """Give each block of an encoder that was built narrow the widths of ``config``."""
    take_config_(encoder, config)
    encoder.neck.config = config
    shapes = zip(
        encoder.layers,
        config.heads_per_block,
        config.head_dim_per_block,
        config.mlp_dim_per_block,
        strict=True,
    )
    for layer, heads, head_dim, mlp in shapes:
        _widen_attention_(layer.attn, config, heads, head_dim)
        layer.mlp.lin1 = nn.Linear(config.hidden_size, mlp)
        layer.mlp.lin2 = nn.Linear(mlp, config.hidden_size)


def _widen_attention_(attention: Any, config: Any, heads: int, head_dim: int) -> None:
    attention.num_attention_heads = heads
    attention.scale = head_dim**-0.5
    attention.qkv = nn.Linear(config.hidden_size, 3 * heads * head_dim, bias=config.qkv_bias)
    attention.proj = nn.Linear(heads * head_dim, config.hidden_size)
    if attention.use_rel_pos:
        attention.rel_pos_h = nn.Parameter(torch.zeros(attention.rel_pos_h.shape[0], head_dim))
        attention.rel_pos_w = nn.Parameter(torch.zeros(attention.rel_pos_w.shape[0], head_dim))
