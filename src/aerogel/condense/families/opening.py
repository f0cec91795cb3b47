"""Open an image network of transformers as a backbone, by folder or hub name."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aerogel.condense.families.architectures import ARCHITECTURES, Architecture
from aerogel.condense.families.backbone import Backbone, choose_grid, hash_weights
from aerogel.condense.families.contrastive import ClassWords
from aerogel.condense.families.preparation import LARGEST_SIDE, Preparation, understand_processor
from aerogel.condense.families.towers import Tower
from aerogel.core.progress import announce
from aerogel.errors import DataError, compose
from aerogel.zoo.pretrained import load_part, load_pretrained, read_config

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_USUAL_SIZE = 224
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def load_transformer(name: str, grid: int | None = None, *, size: int = 0) -> Backbone:
    """Load an image network from a folder or the Hugging Face hub; code that lies there is never run.

    ``grid`` None is 1 with a text tower, so that the features are those that it knows, and else 2 for images
    of a ``size`` from 16 pixels up.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded, or it is of a family that is not known here.
    """
    fields = read_config(name)
    kind = str(fields.get("model_type"))
    if kind not in ARCHITECTURES:
        raise DataError(
            compose(
                f"an image network of one of the families {', '.join(ARCHITECTURES)}",
                f"{name!r} of type {kind!r}",
                "choose one of these, an EfficientNet-Lite0 file, or a backbone of the zoo",
            )
        )
    family = ARCHITECTURES[kind]
    model = load_pretrained(family.model, name, **family.options)
    tokenizer = load_part("AutoTokenizer", name) if family.text else None
    preparation = _find_preparation(name, family, model.config)
    grid = grid or (1 if family.text else choose_grid(size))
    return build_backbone(name, family, model, preparation, grid, tokenizer, fields)


def build_backbone(
    name: str,
    family: Architecture,
    model: Any,
    preparation: Preparation,
    grid: int,
    tokenizer: Any,
    fields: dict[str, Any],
) -> Backbone:
    """Make a backbone of a loaded ``model`` of ``family``; ``fields`` are those of its config as stored."""
    width = family.width(model)
    tower = family.tower(model, preparation, grid).float().eval().requires_grad_(False)
    whole = family.whole
    words: dict[str, Any] = {}
    if family.text:
        words = {
            "text": ClassWords(model.eval(), tokenizer, padded=family.text == "padded"),
            "logit_scale": float(model.logit_scale.detach().exp()),
            "logit_bias": float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0,
        }
    return Backbone(
        name=name,
        module=tower,
        features=width * (whole + grid**2 * (not whole or grid > 1)),
        grid=grid,
        lora_targets=tuple(key for key, layer in tower.named_modules() if family.takes_change(key, layer)),
        norms=_pair_norms(tower, family),
        sha256=hash_weights(tower),
        size_bytes=_count_bytes(tower, fields),
        unit_features=family.text is not None,
        **words,
    )


def _find_preparation(name: str, family: Architecture, config: Any) -> Preparation:
    """Return how images are prepared: whole, at the size that the network sees, by its image processor.

    A processor that enlarges and then cuts the centre out would hide the margin of a view from the network
    that has to label all of it, so the view is brought to the cut's size at once.
    """
    own = getattr(config, "vision_config", config)
    side = _read_side(own)
    if not 0 < side <= LARGEST_SIDE:
        raise DataError(
            compose(f"images of up to {LARGEST_SIDE} pixels for {name!r}", f"{side}", "choose another model")
        )
    folder = Path(name)
    if folder.is_dir() and not any((folder / each).is_file() for each in _PROCESSOR_FILES):
        mean, std = family.statistics
        announce(
            f"{name} has no {_PROCESSOR_FILES[0]}: images are resized to {side} pixels, and normalised by "
            f"the mean {mean} and the deviation {std} that are usual for its family"
        )
        return Preparation((side, side), None, "bicubic", 1.0, mean, std)
    processor: dict[str, Any] = load_part("AutoImageProcessor", name).to_dict()
    if processor.get("max_num_patches"):
        processor["size"] = {"height": side, "width": side}
    found = understand_processor(name, processor, int(getattr(own, "num_channels", 3)))
    return replace(found, resize=(side, side) if family.fixed else found.crop or found.resize, crop=None)


def _read_side(config: Any) -> int:
    """Return the side in pixels of the images that a config is made for."""
    side = getattr(config, "image_size", None)
    if side is None and getattr(config, "num_patches", None):
        return isqrt(int(config.num_patches)) * int(config.patch_size)
    return int(side[0] if isinstance(side, (list, tuple)) else side or _USUAL_SIZE)


def _pair_norms(tower: Tower, family: Architecture) -> dict[str, str]:
    """Return the batch normalisation after each convolution that one alone reads, by their names."""
    layers = dict(tower.named_modules())
    pairs = {}
    for key, layer in layers.items():
        parent, _, last = key.rpartition(".")
        norm = f"{parent}.{family.norms.get(last, '')}"
        if isinstance(layer, nn.Conv2d) and isinstance(layers.get(norm), nn.BatchNorm2d):
            pairs[key] = norm
    return pairs


def _count_bytes(tower: Tower, fields: dict[str, Any]) -> int:
    """Return what the tower's numbers take in the precision that the config names."""
    dtype = str(fields.get("dtype") or fields.get("torch_dtype") or "float32").removeprefix("torch.")
    stored: dict[str, Tensor] = tower.state_dict()
    numbers = sum(value.numel() for key, value in stored.items() if key not in ("mean", "std"))
    return numbers * _BYTES.get(dtype, 4)
