"""The label generator as it is trained: every change folded into the weight that it changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.func import functional_call

_ADAPTER = "default"


class Merged(nn.Module):
    """Compute what ``adapted`` computes, with one layer for each adapted one; gradients reach its parameters.

    A low-rank change beside a small convolution takes as long as the convolution; added to its weight first,
    it costs next to nothing. ``norms`` maps names of convolutions inside the backbone to those of the batch
    normalisations that alone read them: in evaluation mode, as always here, these are a scale and a shift,
    and are folded too.
    """

    def __init__(self, adapted: PeftModel, norms: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.adapted = adapted
        self._root: Any = adapted.base_model.model
        self._norms = {f"backbone.{conv}": f"backbone.{norm}" for conv, norm in (norms or {}).items()}
        skeleton = copy.deepcopy(adapted).unload().to("meta")
        for conv, norm in self._norms.items():
            layer = skeleton.get_submodule(conv)
            layer.bias = nn.Parameter(torch.empty(layer.out_channels, device="meta"))
            skeleton.set_submodule(norm, nn.Identity())
        # In a tuple: it has the shape of the layers and no weights, and is no part of this module.
        self._skeleton = (skeleton,)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] in float32 for ``images`` [B, C, S, S] in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            values = self._fold(self._merge())
        logits: Tensor = functional_call(self._skeleton[0], values, (images,), strict=True)
        return logits

    def _merge(self) -> dict[str, Tensor]:
        """Return the value of every parameter and buffer under the name it has without an adapter."""
        values: dict[str, Tensor] = dict(self._root.named_parameters()) | dict(self._root.named_buffers())
        for name, layer in self._root.named_modules():
            if isinstance(layer, LoraLayer):
                lora: Any = layer
                plain: Any = layer.get_base_layer()
                values[f"{name}.weight"] = plain.weight + lora.get_delta_weight(_ADAPTER)
                if plain.bias is not None:
                    values[f"{name}.bias"] = plain.bias
            elif isinstance(layer, ModulesToSaveWrapper):
                saved = layer.modules_to_save[_ADAPTER]
                values |= {f"{name}.{key}": value for key, value in saved.named_parameters()}
        return values

    def _fold(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``values`` with the normalisations in the convolutions, and without the adapter's own."""
        for conv, norm in self._norms.items():
            spread = values[f"{norm}.running_var"] + self._root.get_submodule(norm).eps
            scale = values[f"{norm}.weight"] * spread.rsqrt()
            shift = values[f"{norm}.bias"] - values[f"{norm}.running_mean"] * scale
            bias = values.get(f"{conv}.bias")
            values[f"{conv}.bias"] = shift if bias is None else shift + bias * scale
            values[f"{conv}.weight"] = values[f"{conv}.weight"] * scale[:, None, None, None]
        skeleton = self._skeleton[0]
        wanted = (*skeleton.named_parameters(), *skeleton.named_buffers())
        return {name: values[name] for name, _ in wanted}
