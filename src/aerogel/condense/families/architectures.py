"""What sets the families of image networks in transformers apart, a line for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from aerogel.condense.families.contrastive import ClipTower, SiglipTower
from aerogel.condense.families.preparation import Preparation
from aerogel.condense.families.same_padding import pad_inside
from aerogel.condense.families.towers import MapTower, TokenTower, Tower

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

_CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALVES: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_MLP_OR_ATTENTION_NOT = ("embed", "pooler", "position_bias", "reduction")


def is_query_or_value(name: str, layer: nn.Module) -> bool:
    """Tell whether a layer makes queries or values of attention, the placement of arXiv 2106.09685."""
    return isinstance(layer, nn.Linear) and name.rsplit(".", 1)[-1] in ("q_proj", "v_proj", "query", "value")


def is_attention_or_mlp(name: str, layer: nn.Module) -> bool:
    """Tell whether a layer is a linear one of a transformer's attention or MLP."""
    return isinstance(layer, nn.Linear) and not any(part in name for part in _MLP_OR_ATTENTION_NOT)


def is_spatial(name: str, layer: nn.Module) -> bool:
    """Tell whether a layer is a 3x3 convolution over all its channels, the placement of arXiv 2408.08201."""
    return is_ungrouped(name, layer) and isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)


def is_ungrouped(name: str, layer: nn.Module) -> bool:
    """Tell whether a layer mixes all its channels.

    Left out are convolutions by groups, which peft cannot merge a low-rank change into, those with dilation,
    which it does not give the change, gates, and patch embeddings.
    """
    if "patch_embed" in name or "squeeze" in name:
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.dilation == (1, 1)
    return isinstance(layer, nn.Linear)


@dataclass(frozen=True)
class Architecture:
    """Say how a family is opened and read.

    ``model`` is the class in transformers and ``options`` what its constructor is told; ``tower`` reads it,
    at a preparation and a grid; ``width`` is the number of features of a cell or of the whole image,
    ``whole`` says whether there are features of the whole image beside the cells. ``takes_change`` says, by
    name and layer, where low-rank changes go. ``norms`` maps the last part of a convolution's name to that
    of the batch normalisation which alone reads it. ``statistics`` are mean and deviation for a model
    without an image processor, ``fixed`` says that it takes images of its config's size only. ``text`` is
    how its texts are prepared, "masked" or "padded", None without a text tower.
    """

    model: str
    tower: Callable[[Any, Preparation, int], Tower]
    width: Callable[[Any], int]
    takes_change: Callable[[str, nn.Module], bool]
    statistics: Statistics = _IMAGENET
    whole: bool = False
    fixed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


def _hidden_size(model: Any) -> int:
    return int(model.config.hidden_size)


def _last_hidden_size(model: Any) -> int:
    return int(model.config.hidden_sizes[-1])


def _vision_size(model: Any) -> int:
    return int(model.config.vision_config.hidden_size)


def _tokens(prefix: Callable[[Any], int]) -> Callable[[Any, Preparation, int], Tower]:
    return lambda model, preparation, grid: TokenTower(model, preparation, grid, prefix(model.config))


def _maps(norm: str | None = None) -> Callable[[Any, Preparation, int], Tower]:
    return lambda model, preparation, grid: MapTower(model, preparation, grid, norm)


def _transformer(model: str, prefix: Callable[[Any], int], **changes: Any) -> Architecture:
    settings = {"whole": True, "width": _hidden_size, "takes_change": is_attention_or_mlp, **changes}
    return Architecture(model, _tokens(prefix), **settings)


def _convolutional(model: str, width: Callable[[Any], int], **changes: Any) -> Architecture:
    settings = {"tower": _maps(), "takes_change": is_ungrouped, **changes}
    return Architecture(model, width=width, **settings)


def _siglip(model: str, **changes: Any) -> Architecture:
    settings = {"tower": SiglipTower, "whole": True, "fixed": True, "text": "padded", **changes}
    return Architecture(
        model, width=_vision_size, takes_change=is_query_or_value, statistics=_HALVES, **settings
    )


_UNPOOLED = {"add_pooling_layer": False}
_NORMALISED = {"convolution": "normalization"}
_EFFICIENT = {
    "convolution": "batchnorm",
    "expand_conv": "expand_bn",
    "depthwise_conv": "depthwise_norm",
    "project_conv": "project_bn",
    "top_conv": "top_bn",
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "clip": Architecture(
        "CLIPModel",
        ClipTower,
        lambda model: int(model.config.projection_dim),
        is_query_or_value,
        _CLIP,
        whole=True,
        fixed=True,
        text="masked",
    ),
    "siglip": _siglip("SiglipModel"),
    "siglip2": _siglip(
        "Siglip2Model",
        tower=lambda model, preparation, grid: SiglipTower(
            model, preparation, grid, int(model.config.vision_config.patch_size)
        ),
    ),
    "vit": _transformer("ViTModel", lambda _: 1, statistics=_HALVES, fixed=True, options=_UNPOOLED),
    "deit": _transformer("DeiTModel", lambda _: 2, fixed=True, options=_UNPOOLED),
    "beit": _transformer("BeitModel", lambda _: 1, statistics=_HALVES, fixed=True),
    "dinov2": _transformer("Dinov2Model", lambda _: 1),
    "dinov2_with_registers": _transformer(
        "Dinov2WithRegistersModel", lambda config: 1 + int(config.num_register_tokens)
    ),
    "swin": _transformer("SwinModel", lambda _: 0, whole=False),
    "swinv2": _transformer("Swinv2Model", lambda _: 0, whole=False),
    "resnet": _convolutional("ResNetModel", _last_hidden_size, takes_change=is_spatial, norms=_NORMALISED),
    "convnext": _convolutional("ConvNextModel", _last_hidden_size, tower=_maps("layernorm")),
    "convnextv2": _convolutional("ConvNextV2Model", _last_hidden_size, tower=_maps("layernorm")),
    "mobilenet_v2": _convolutional(
        "MobileNetV2Model",
        lambda model: int(model.conv_1x1.convolution.out_channels),
        tower=lambda model, preparation, grid: MapTower(pad_inside(model), preparation, grid),
        statistics=_HALVES,
        norms=_NORMALISED,
    ),
    "efficientnet": _convolutional(
        "EfficientNetModel", lambda model: int(model.config.hidden_dim), norms=_EFFICIENT
    ),
}
