"""Convolutions that pad as TensorFlow's "same" does, for networks that were trained there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """Convolve with TensorFlow's "same" padding: of an odd number of zeros the last side gets one more."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of ceil(side / stride) for ``maps`` [B, C, H, W]."""
        pads: list[int] = []
        for axis in (1, 0):
            size, stride = maps.shape[2 + axis], self.stride[axis]
            reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            lacking = max((size - 1) // stride * stride + reach - size, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        return super().forward(functional.pad(maps, pads) if any(pads) else maps)


def pad_inside(model: Any) -> Any:
    """Let the convolutions of a transformers MobileNet pad by themselves, and return it.

    Its layers read stride and kernel off the convolution to pad before it, which a layer with a low-rank
    change around it does not show.
    """
    if not model.config.tf_padding:
        return model
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            model.set_submodule(name, _copy(layer))
    model.config.tf_padding = False
    return model


def _copy(layer: nn.Conv2d) -> SameConv2d:
    shape: dict[str, Any] = {
        name: getattr(layer, name)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
    }
    same = SameConv2d(**shape, bias=layer.bias is not None, device="meta")
    same.weight, same.bias = layer.weight, layer.bias
    return same
