"""CLIP image towers from transformers, with the text tower for zero-shot heads (arXiv 2103.00020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.families.backbone import Backbone, hash_weights
from aerogel.errors import DataError, compose
from aerogel.zoo.pretrained import load_part, load_pretrained

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageTower(nn.Module):
    """Map images in [0, 1] of any square size to CLIP's unit image features."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection
        self.size = int(model.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(_MEAN).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, d] of length 1 for ``images`` [B, 1 or 3, S, S]."""
        images = images.expand(-1, 3, -1, -1)
        if images.shape[-1] != self.size:
            images = functional.interpolate(
                images, size=self.size, mode="bicubic", align_corners=False, antialias=True
            ).clamp(0.0, 1.0)
        pooled = self.vision_model(pixel_values=(images - self.mean) / self.std).pooler_output
        return functional.normalize(self.visual_projection(pooled), dim=-1)


def embed_classes(model: Any, tokenizer: Any, names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    """Return one unit row [classes, d] per class: the mean over the templates of its unit text embeddings."""
    rows = []
    for name in names:
        # Replaced, not formatted: a template comes with the archive, and a format can ask for attributes.
        prompts = [template.replace("{}", name) for template in templates]
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        with torch.no_grad():
            pooled = model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            unit = functional.normalize(model.text_projection(pooled).float(), dim=-1)
        rows.append(functional.normalize(unit.mean(0), dim=0))
    return torch.stack(rows)


def build_clip(name: str, model: Any, tokenizer: Any) -> Backbone:
    """Make a backbone of a transformers ``CLIPModel`` and its tokenizer.

    LoRA goes to the query and value projections of every layer, the placement of arXiv 2106.09685.
    """
    tower = ClipImageTower(model).float().eval().requires_grad_(False)
    targets = [
        key
        for key, layer in tower.named_modules()
        if isinstance(layer, nn.Linear) and key.rsplit(".", 1)[-1] in ("q_proj", "v_proj")
    ]
    model = model.eval()
    return Backbone(
        name=name,
        module=tower,
        features=int(model.config.projection_dim),
        lora_targets=tuple(targets),
        sha256=hash_weights(tower),
        size_bytes=sum(parameter.numel() for parameter in tower.parameters()) * 2,
        text=lambda names, templates: embed_classes(model, tokenizer, names, templates),
        logit_scale=float(model.logit_scale.detach().exp()),
        unit_features=True,
    )


def load_clip(name: str) -> Backbone:
    """Load a CLIP from a folder or the Hugging Face hub.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded, or it is not a CLIP.
    """
    kind = load_part("AutoConfig", name).model_type
    if kind != "clip":
        raise DataError(
            compose(
                "a CLIP model (model_type clip)",
                f"{name!r} of type {kind!r}",
                "choose a CLIP, or a zoo backbone",
            )
        )
    return build_clip(name, load_pretrained("CLIPModel", name), load_part("AutoTokenizer", name))
