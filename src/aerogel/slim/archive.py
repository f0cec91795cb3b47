"""Write a slimmed model as transformers saves it, with its plan, a card and what it measures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from aerogel.core.files import write_text_atomic
from aerogel.core.progress import announce
from aerogel.errors import DataError
from aerogel.measure import count_macs, count_parameters
from aerogel.slim.agreement import compare_masks, find_objects
from aerogel.slim.config import SlimConfig
from aerogel.slim.plan import Plan
from aerogel.slim.run_folder import PLAN
from aerogel.slim.sources import Sources
from aerogel.zoo.photos import Photos
from aerogel.zoo.pretrained import quiet
from aerogel.zoo.selection import OTHER_FILE

KIND = "slim-model"
_WEIGHTS = "model.safetensors"
_MOST_NAMED = 20
_SCALES = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1))
_CARD = """---
library_name: transformers
pipeline_tag: mask-generation
base_model: {base}
---

# {name}, slimmed

{base} with fewer channels in its image encoder, cut and aligned without labels by Aerogel ({how}).
{decoder}

{table}

The agreement is with the masks of {base} on photos that were kept back. `plan.json` lists the channels that
stayed{turned}.

```python
from {loader}

model = {call}("path/to/this/folder")
```
"""
_KEPT = "Prompt encoder and mask decoder are those of {base}, and so is its licence."
_TAUGHT = "The prompt encoder is that of {base}, and so is the licence; its masks taught the mask decoder."


def write_model(
    student: Any, teacher: Any, plan: Plan, sources: Sources, config: SlimConfig, work: Path
) -> dict[str, Any]:
    """Write model, image processor, plan and card into ``work``; return the facts for its manifest.

    ``teacher`` is the one on the run's device, in float32. What is compared with it is the model as saved,
    rounded to its dtype.
    """
    wanted = config.dtype
    dtype = sources.stored_dtype if wanted == "auto" else getattr(torch, wanted)
    saved = copy.deepcopy(student).to(dtype)
    save_segmenter(saved, work)
    plan.save(work / PLAN)
    facts = {
        "before": weigh(teacher, sources.stored_dtype),
        "after": weigh(student, dtype),
        "file_bytes": (work / _WEIGHTS).stat().st_size,
        "family": sources.channels.family,
        "layout": plan.layout,
        "dtype": str(dtype).removeprefix("torch."),
        "photos": _count_photos(sources),
        "agreement": _compare(saved.to(torch.float32), teacher, sources.held_out),
    }
    write_text_atomic(work / "README.md", _write_card(config, facts, type(saved).__name__))
    return facts


def _count_photos(sources: Sources) -> dict[str, Any]:
    left_out = [each for each in sources.photos.skipped if each.reason != OTHER_FILE]
    return {
        "aligned": len(sources.photos),
        "held_out": len(sources.held_out),
        "left_out_count": len(left_out),
        "left_out": [{"photo": each.identifier, "reason": each.reason} for each in left_out[:_MOST_NAMED]],
    }


def _compare(student: Any, teacher: Any, photos: Photos) -> dict[str, Any]:
    """Measure the agreement if there is one: a run that took hours must not fail for want of it."""
    if not hasattr(teacher, "mask_decoder"):
        announce("agreement: not measured, for the model has no mask decoder")
        return {}
    objects = find_objects(teacher, photos)
    if not objects:
        announce("agreement: not measured, for the teacher finds nothing in the photos that were kept back")
        return {}
    try:
        return compare_masks(student, teacher, objects, name="slimmed").to_dict(per_object=False)
    except DataError as error:
        announce(f"agreement: not measured: {error}")
        return {}


def save_segmenter(model: Any, folder: Path) -> None:
    """Save a model as transformers does, with the image processor that its size asks for."""
    from transformers import SamImageProcessorPil

    with quiet():
        model.save_pretrained(folder)
        size = model.config.vision_config.image_size if hasattr(model.config, "vision_config") else None
        size = size or model.config.image_size
        side = {"height": size, "width": size}
        SamImageProcessorPil(size={"longest_edge": size}, pad_size=side).save_pretrained(folder)


def weigh(model: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Return parameters, bytes in ``dtype``, the encoder's multiply-accumulates for one image, and widths.

    "mlp_dim" is the mean over blocks.
    """
    encoder = getattr(model, "vision_encoder", model)
    vision = encoder.config
    macs = count_macs(encoder, (1, 3, vision.image_size, vision.image_size))
    parameters = int(count_parameters(model).value)
    # Of widths of their own in every block the model's configuration names the largest.
    mlps = getattr(vision, "mlp_dim_per_block", None) or [vision.mlp_dim]
    return {
        "parameters": parameters,
        "encoder_parameters": int(count_parameters(encoder).value),
        "bytes": parameters * torch.empty(0, dtype=dtype).element_size(),
        "macs": macs.linear,
        "macs_with_attention": macs.with_attention,
        "hidden_size": vision.hidden_size,
        "heads": vision.num_attention_heads,
        "mlp_dim": round(fmean(mlps)),
        "blocks": vision.num_hidden_layers,
        "image_size": vision.image_size,
    }


def write_counts(before: float, after: float) -> tuple[str, str]:
    """Write two counts in the unit that suits the first: G, M, k or none."""
    unit, scale = next((unit, scale) for unit, scale in _SCALES if before >= scale or scale == 1)
    one, other = (f"{count / scale:.2f} {unit}".rstrip() for count in (before, after))
    return one, other


def _write_card(config: SlimConfig, facts: Mapping[str, Any], kind: str) -> str:
    before, after = facts["before"], facts["after"]
    rows = [
        (name, *write_counts(before[key], after[key]))
        for name, key in (
            ("parameters of the encoder", "encoder_parameters"),
            ("parameters in all", "parameters"),
            ("MACs of the encoder, linear layers and convolutions", "macs"),
            ("MACs of the encoder, with attention", "macs_with_attention"),
        )
    ]
    for row in facts["agreement"].get("rows", ()):
        if row["predictor"] == "model" and row["reference"] == "teacher":
            rows.append((f"mIoU, {row['title']}", "1", f"{row['iou']['mean']:.3f}"))
    table = "\n".join(f"| {' | '.join(row)} |" for row in [("", "before", "after"), ("---",) * 3, *rows])
    stock = config.layout == "stock"
    loader = f"transformers import {kind}" if stock else "aerogel.slim import open_model"
    call = f"{kind}.from_pretrained" if stock else "open_model"
    name = Path(config.model).name or "model"
    decoder = _TAUGHT if config.masks.epochs and config.masks.decoder_lr else _KEPT
    return _CARD.format(
        base=config.model,
        name=name,
        decoder=decoder.format(base=config.model),
        turned=", of the basis that the model was rotated into" if config.rotate.photos else "",
        how=f"{config.method}, ratio {config.ratio}, {config.score.criterion}",
        table=table,
        loader=loader,
        call=call,
    )
