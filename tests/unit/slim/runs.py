"""Slimmings of a second: a tiny SAM, photos of rectangles, and settings to go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from aerogel.core.config import from_dict
from aerogel.slim.api import Slimmed, slim
from aerogel.slim.config import SlimConfig
from aerogel.slim.pipeline import Pipeline
from aerogel.slim.sources import Sources
from aerogel.zoo.photos import Photos, open_photos
from tests.unit.slim.stand_ins import rectangles, tiny_sam

HELD_OUT = 2
ALIGN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 2,
    "lr": 1e-3,
    "weight_epochs": 1,
    "warmup": 0.0,
    "schedule": "constant",
}


def write_photos(folder: Path, count: int = 6) -> Path:
    """Write photos of rectangles, of two sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        size = (48, 64) if seed % 2 else (60, 40)
        Image.fromarray(rectangles(seed, size=size).image).save(folder / f"{seed}.png")
    return folder


def config(**settings: Any) -> SlimConfig:
    """Return settings for seconds; ``align`` and ``score`` are merged into those here."""
    merged = {"model": "SamModel", "images": "photos", "held_out": HELD_OUT, "device": "cpu", **settings}
    merged["align"] = {**ALIGN, **settings.get("align", {})}
    merged["score"] = {"photos": 2, **settings.get("score", {})}
    return from_dict(SlimConfig, merged)


def teacher(family: str = "Sam") -> Any:
    """Return a teacher that finds something in these photos."""
    return tiny_sam(3, family).eval()


def pipeline(photos: Path | Photos, out: Path, model: Any = None, **settings: Any) -> Pipeline:
    """Return a pipeline in ``out``; ``overwrite`` goes to it, the rest are settings."""
    overwrite = settings.pop("overwrite", False)
    checked = config(**settings)
    found = photos if isinstance(photos, Photos) else open_photos(photos)
    sources = Sources.split(model or teacher(), found, checked.held_out, checked.seed)
    return Pipeline(checked, sources, out, overwrite=overwrite, command="aerogel test")


def run(photos: Any, out: Path, model: Any = None, **settings: Any) -> Slimmed:
    """Slim to the end; ``overwrite`` and ``teacher_cache`` go to the call, the rest are settings."""
    given = {name: settings.pop(name) for name in ("overwrite", "teacher_cache") if name in settings}
    return slim(
        model or teacher(), photos, config=config(**settings), out=out, command="aerogel test", **given
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of all that a model holds."""
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def encoder_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of the weights of a model's encoder."""
    return {name: each.detach().clone() for name, each in model.vision_encoder.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether both hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def snapshot(model: Any) -> dict[str, Any]:
    """Return all of a model that a slimming might change by mistake."""
    return {
        "modes": [module.training for module in model.modules()],
        "classes": [type(module).__name__ for module in model.modules()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
            for module in model.modules()
        ],
        "gradients": [(each.requires_grad, each.grad is None) for each in model.parameters()],
        "places": [(str(each.dtype), str(each.device), tuple(each.shape)) for each in model.parameters()],
        "config": model.config.to_dict(),
    }
