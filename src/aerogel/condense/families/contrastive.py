"""Image towers with a text tower beside them: CLIP and SigLIP.

CLIP is arXiv 2103.00020, SigLIP 2303.15343, SigLIP 2 2502.14786. The text tower words the classes, so that
the label generator starts as the zero-shot classifier.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aerogel.condense.families.preparation import Preparation
from aerogel.condense.families.towers import Tower, fold_tokens
from aerogel.errors import DataError, compose


class ClipTower(Tower):
    """Read CLIP's unit image features; cells go through the same normalisation and projection."""

    def __init__(self, model: Any, preparation: Preparation, grid: int) -> None:
        super().__init__(preparation, grid)
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection

    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the image's embedding of length 1, and the patch tokens as maps."""
        found = self.vision_model(pixel_values=pixels)
        whole = functional.normalize(self.visual_projection(found.pooler_output), dim=-1)
        return whole, fold_tokens(found.last_hidden_state[:, 1:])

    def finish(self, cells: Tensor) -> Tensor:
        """Return the cells' embeddings of length 1."""
        projected = self.visual_projection(self.vision_model.post_layernorm(cells))
        return functional.normalize(projected, dim=-1)


class SiglipTower(Tower):
    """Read SigLIP's unit image features.

    ``patch`` is None, or the side in pixels of the patches that the network wants to be given cut out, as
    SigLIP 2 with flexible shapes does.
    """

    def __init__(self, model: Any, preparation: Preparation, grid: int, patch: int | None = None) -> None:
        super().__init__(preparation, grid)
        vision = model.vision_model
        if not vision.use_head:
            raise DataError(
                compose(
                    "a SigLIP with its pooling head",
                    "one without (vision_use_head: false)",
                    "choose a SigLIP that was saved whole",
                )
            )
        # Under a name of its own: peft would take a module called "head" for the head of the generator.
        self.pooling = vision.head
        vision.use_head = False
        del vision.head
        self.vision_model = vision
        self.patch = patch

    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the image's embedding of length 1, and the patch tokens as maps."""
        inputs = {"pixel_values": pixels} if self.patch is None else cut_patches(pixels, self.patch)
        tokens: Tensor = self.vision_model(**inputs).last_hidden_state
        return functional.normalize(self.pooling(tokens), dim=-1), fold_tokens(tokens)

    def finish(self, cells: Tensor) -> Tensor:
        """Return the cells with length 1."""
        return functional.normalize(cells, dim=-1)


def cut_patches(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """Return what a SigLIP 2 of flexible shapes is given for square ``pixels`` [B, C, S, S]: patches."""
    count, channels, side = pixels.shape[0], pixels.shape[1], pixels.shape[-1] // patch
    cut = pixels.unflatten(3, (side, patch)).unflatten(2, (side, patch))
    flat = cut.permute(0, 2, 4, 3, 5, 1).reshape(count, side * side, patch * patch * channels)
    return {
        "pixel_values": flat,
        "pixel_attention_mask": torch.ones(count, side * side, dtype=torch.int32, device=pixels.device),
        "spatial_shapes": torch.full((count, 2), side, dtype=torch.int64),
    }


class ClassWords:
    """Embed class names by the text tower of a CLIP or SigLIP ``model`` and its ``tokenizer``.

    SigLIP was trained on lower-case texts padded to full length and unmasked (``padded``), CLIP on masked
    ones.
    """

    def __init__(self, model: Any, tokenizer: Any, *, padded: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.padded = padded
        self.length = int(model.config.text_config.max_position_embeddings)

    def __call__(self, names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Return one unit row [classes, d] per class: the mean over the templates of its unit embeddings."""
        rows = []
        for name in names:
            # Replaced, not formatted: a template comes with the archive, and a format can ask for attributes.
            prompts = [each.replace("{}", name) for each in templates]
            with torch.no_grad():
                unit = functional.normalize(self._embed(prompts), dim=-1)
            rows.append(functional.normalize(unit.mean(0), dim=0))
        return torch.stack(rows)

    def _embed(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            [prompt.lower() for prompt in prompts] if self.padded else prompts,
            padding="max_length" if self.padded else True,
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        text = self.model.text_model
        if self.padded:
            found: Tensor = text(input_ids=tokens["input_ids"]).pooler_output
        else:
            mask = tokens["attention_mask"]
            pooled = text(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
            found = self.model.text_projection(pooled)
        return found.float()
