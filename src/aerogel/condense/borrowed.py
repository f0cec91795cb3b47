"""Networks whose architecture is transformers', built from a config with random weights, and fitted to size.

transformers is imported when one of them is built, and not before. Each has a variant for images under 96
pixels, as :class:`~aerogel.condense.networks.ResNet18` has: finer patches, or a stem of stride 1. Images
whose side is no whole number of patches or windows are padded with the mean colour, right and below.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.checks import WIDTH_STEPS
from aerogel.errors import ConfigError, MissingDependencyError, compose

__all__ = ["Borrowed", "build_mobilenet_v2", "build_swin_t", "build_vit_t"]

_LARGE_FROM = 96
_SWIN_HEADS = (3, 6, 12, 24)  # as many at each stage as its width grows
_SWIN_DEPTHS = (2, 2, 6, 2)
_BATCH_NORM_MOMENTUM = 0.1


class Borrowed(nn.Module):
    """Classify with a transformers model: pad images to the side it takes, and give its logits."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = model
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of ``images`` [B, channels, H, W] of at most ``side`` pixels."""
        below, right = self.side - images.shape[2], self.side - images.shape[3]
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        return cast(Tensor, self.model(pixel_values=images).logits)


def build_vit_t(*, channels: int, classes: int, size: int, width: int = 192, depth: int = 12) -> nn.Module:
    """Build ViT-T: 12 layers of ``width``, 3 heads (arXiv 2010.11929; the size is DeiT-Ti's, 2012.12877).

    Patches are 16 pixels wide, 4 for images under 96.

    Raises:
        ConfigError: the heads do not share ``width`` evenly.
        MissingDependencyError: transformers is not installed.
    """
    del depth  # one depth exists; the argument keeps every network's signature the same
    heads = _share_heads("vit-t", width)
    library = _load_library()
    patch = 16 if size >= _LARGE_FROM else 4
    side = _round_up(size, patch)
    config = library.ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=12,
        num_attention_heads=heads,
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        num_labels=classes,
    )
    return Borrowed(library.ViTForImageClassification(config), side)


def build_swin_t(*, channels: int, classes: int, size: int, width: int = 96, depth: int = 12) -> nn.Module:
    """Build Swin-T: stages of 2, 2, 6 and 2 layers, ``width`` channels in the first (arXiv 2103.14030).

    Patches are 4 pixels wide, 1 for images under 96; windows span 7 patches, or as many as are left in the
    last stage where these are fewer: at 32 pixels, windows are 4 wide in a map of 32, 16, 8 and 4.

    Raises:
        ConfigError: the heads do not share ``width`` evenly.
        MissingDependencyError: transformers is not installed.
    """
    del depth
    _share_heads("swin-t", width)
    library = _load_library()
    patch = 4 if size >= _LARGE_FROM else 1
    last = 2 ** (len(_SWIN_DEPTHS) - 1) * patch  # pixels that a patch of the last stage stands for
    side = max(_round_up(size, last), 2 * last)
    config = library.SwinConfig(
        embed_dim=width,
        depths=list(_SWIN_DEPTHS),
        num_heads=list(_SWIN_HEADS),
        window_size=min(7, side // last),
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        num_labels=classes,
    )
    return Borrowed(library.SwinForImageClassification(config), side)


def build_mobilenet_v2(
    *, channels: int, classes: int, size: int, width: int = 32, depth: int = 53
) -> nn.Module:
    """Build MobileNet-V2 with ``width`` channels in the stem, 32 as published (arXiv 1801.04381, table 2).

    Images under 96 pixels are not halved by the stem and by the first of the strided stages, so that 32
    pixels end on a map of 4. Normalisation follows a tenth of each batch, as that work's does; in
    transformers' config it would follow the last batch almost alone.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    del depth
    library = _load_library()
    config = library.MobileNetV2Config(
        num_channels=channels, image_size=size, depth_multiplier=width / 32, num_labels=classes
    )
    model = library.MobileNetV2ForImageClassification(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCH_NORM_MOMENTUM
    if size < _LARGE_FROM:
        strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for convolution in strided[:2]:
            convolution.stride = (1, 1)
    return Borrowed(model, size)


def _load_library() -> Any:
    try:
        import transformers
    except ImportError as failure:
        raise MissingDependencyError(
            compose(
                "transformers, for this network",
                "none",
                'install it: pip install "aerogel[condense]", or choose convnet or a resnet',
            )
        ) from failure
    return transformers


def _share_heads(name: str, width: int) -> int:
    heads = WIDTH_STEPS[name]
    if width % heads:
        raise ConfigError(
            compose(
                f"a width of {name} that its {heads} heads share evenly",
                f"{width}",
                f"take a multiple of {heads}, such as {_round_up(width, heads)}",
            )
        )
    return heads


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
