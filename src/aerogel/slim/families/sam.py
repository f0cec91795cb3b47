"""SAM as transformers has it, and what its encoder shares with SAM-HQ's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from aerogel.errors import MismatchError, compose
from aerogel.slim.channels import Axis, Channels, name_group
from aerogel.slim.families.encoder import describe_encoder, read_widths
from aerogel.slim.families.sites import Sites, find_sites
from aerogel.slim.plan import Layout

_PER_BLOCK = ("heads_per_block", "head_dim_per_block", "mlp_dim_per_block")
_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
# What a config says of itself rather than of the model.
_OWN = ("model_type", "transformers_version", "scale")


@dataclass(frozen=True)
class SamFamily:
    """Knows a SAM of transformers: its whole, its vision model or the bare encoder, at any config.

    ``title`` begins the names of its classes in transformers, "Flex" and ``title`` those of ours in
    ``flexible``. ``readers`` are members of the embedding in the mask decoder; ``decoder_width`` is what the
    decoder's config calls that width.
    """

    name: str
    title: str
    modeling: str
    flexible: str
    readers: tuple[Axis, ...] = ()
    decoder_width: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the classes that it knows."""
        return tuple(f"{self.title}{part}" for part in ("Model", "VisionModel", "VisionEncoder"))

    def owns(self, model: nn.Module) -> bool:
        """Tell whether the model is one of the family's classes or made from them, with their encoder."""
        known = isinstance(model, tuple(self._stock(name) for name in self.models))
        return known and isinstance(self._encoder(model)[0], self._stock(f"{self.title}VisionEncoder"))

    def describe(self, model: nn.Module, widths: Mapping[str, int] | None = None) -> Channels:
        """Return the model's groups of channels, as it is or as it would be with other ``widths``."""
        encoder, prefix = self._encoder(model)
        readers = self.readers if hasattr(model, "mask_decoder") else ()
        sizes = read_widths(encoder) if widths is None else widths
        return describe_encoder(self.name, encoder, prefix, sizes, readers)

    def locate(self, model: nn.Module) -> Sites:
        """Return where the model's features are."""
        return find_sites(model, self._encoder(model)[0])

    def require_layout(self, model: nn.Module, layout: Layout) -> None:
        """Check that the model's class has a flexible one beside it.

        Raises:
            MismatchError: it is a class of somebody else's.
        """
        encoder, _ = self._encoder(model)
        for each in dict.fromkeys((model, encoder)):
            if layout == "flex" and not self._is_flexible(each) and not self._is_stock(each):
                raise MismatchError(
                    compose(
                        f"one of {', '.join(self.models)} for the flex layout",
                        f"{type(each).__name__}, derived from it",
                        "load the weights with transformers' own class, or use the stock layout",
                    )
                )

    def settle_(self, model: nn.Module, widths: Mapping[str, int], layout: Layout) -> None:
        """Make attention, configs and classes agree with parameters that have these ``widths`` already."""
        encoder, _ = self._encoder(model)
        for index, layer in enumerate(encoder.layers):
            layer.attn.num_attention_heads = widths[name_group("heads", index)]
            layer.attn.scale = widths[name_group("head_dims", index)] ** -0.5
        vision = self._shape_vision(encoder.config, widths, layout)
        exchanged = {id(encoder.config): vision}
        whole: Any = getattr(model, "config", None)
        if whole is not None and hasattr(whole, "vision_config"):
            exchanged |= self._shape_whole(whole, vision, widths, layout)
        # Configs may be shared with other models, so they are replaced and never changed.
        for module in model.modules():
            old = vars(module).get("config")
            if id(old) in exchanged:
                module.config = exchanged[id(old)]
        for each in dict.fromkeys((model, encoder)):
            self._choose_class_(each, layout)

    def _shape_vision(self, old: Any, widths: Mapping[str, int], layout: Layout) -> Any:
        blocks = range(sum(name.endswith(".mlp") for name in widths))
        heads, dims, mlp = (
            [widths[name_group(kind, index)] for index in blocks] for kind in ("heads", "head_dims", "mlp")
        )
        embedding = widths[name_group("embedding")]
        changes: dict[str, Any] = {
            "hidden_size": embedding,
            "num_attention_heads": max(heads),
            "mlp_dim": max(mlp),
        }
        if layout == "flex":
            changes |= dict(zip(_PER_BLOCK, (heads, dims, mlp), strict=True))
        vision = self._convert(old, "VisionConfig", layout, changes)
        vision.scale = embedding // 2
        return vision

    def _shape_whole(
        self, old: Any, vision: Any, widths: Mapping[str, int], layout: Layout
    ) -> dict[int, Any]:
        parts = {name: copy.deepcopy(getattr(old, name)) for name in _PARTS if name != "vision_config"}
        if self.decoder_width is not None:
            setattr(parts["mask_decoder_config"], self.decoder_width, widths[name_group("embedding")])
        whole = self._convert(old, "Config", layout, {"vision_config": vision, **parts})
        found = {id(getattr(old, name)): getattr(whole, name) for name in _PARTS}
        return {id(old): whole, **found}

    def _convert(self, old: Any, part: str, layout: Layout, changes: Mapping[str, Any]) -> Any:
        """Return ``old`` as the layout's own class of config, with ``changes``."""
        name = f"{self.title}{part}"
        target = getattr(self._flex_module(), f"Flex{name}") if layout == "flex" else self._stock(name)
        if isinstance(old, target) and self._is_flexible(old) == (layout == "flex"):
            kept = copy.deepcopy(old)
            for key, value in changes.items():
                setattr(kept, key, value)
            return kept
        dropped = {*_OWN, *_PER_BLOCK, *changes}
        fields = {key: value for key, value in old.to_dict().items() if key not in dropped}
        made = target(**fields, **changes)
        made._attn_implementation = old._attn_implementation
        return made

    def _choose_class_(self, module: Any, layout: Layout) -> None:
        name = type(module).__name__
        if layout == "flex" and self._is_stock(module):
            kind = getattr(self._flex_module(), f"Flex{name}")
        elif layout == "stock" and self._is_flexible(module):
            kind = self._stock(name.removeprefix("Flex"))
        else:
            return
        # transformers learns what it can record of a class when one is built; here that takes no memory.
        with torch.device("meta"):
            kind(copy.deepcopy(module.config))
        module.__class__ = kind

    def _is_stock(self, module: nn.Module) -> bool:
        return any(type(module) is self._stock(name) for name in self.models)

    def _is_flexible(self, each: Any) -> bool:
        return type(each).__module__ == self.flexible

    def _encoder(self, model: nn.Module) -> tuple[Any, str]:
        if isinstance(model, self._stock(f"{self.title}VisionEncoder")):
            return model, ""
        return model.vision_encoder, "vision_encoder."

    def _stock(self, name: str) -> Any:
        return getattr(import_module(self.modeling), name)

    def _flex_module(self) -> Any:
        return import_module(self.flexible)


SAM = SamFamily("sam", "Sam", "transformers.models.sam.modeling_sam", "aerogel.slim.families.flex_sam")
