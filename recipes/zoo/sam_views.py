"""Views of photos, and what a teacher says of them: the training set of the zoo's small SAM, kept in shards.

View 0 of a photo is the whole of it, the others are random crops, half of them mirrored. Of every view a
shard holds the teacher's embedding, and of the first views also random points with the teacher's masks for
them: the one it gives when asked for one, and its three best guesses, whose bounding boxes serve as box
prompts. All of it is a function of the photo's id and the seed, and serves students of every size: their
pixels are drawn and the embedding is pooled to their grid when the shards are loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from aerogel.core.progress import track
from aerogel.core.randomness import derive_seed
from aerogel.slim import Canvas
from aerogel.zoo.photos import Photos

TEACHER_PX = 1024
PATCH = 16
MASK_SIDE = 256
GUESSES = 3
SHARD = 50
# Elsewhere bfloat16 takes many times as long as float32.
HALF = "AVX512" in torch.backends.cpu.get_cpu_capability()


@dataclass(frozen=True)
class ViewSettings:
    """Hold what decides the views and the prompts."""

    views: int = 2
    prompted: int = 2
    points: int = 6
    smallest_area: float = 0.25
    seed: int = 0


def shard_path(folder: Path, view: int, block: int) -> Path:
    """Return where one view of one block of photos is kept."""
    return folder / f"view-{view}-block-{block:03d}.safetensors"


def cut_view(image: NDArray[np.uint8], identifier: str, view: int, settings: ViewSettings) -> Any:
    """Return the photo itself as view 0, else a random crop of it, mirrored half of the time."""
    if view == 0:
        return image
    chance = np.random.default_rng(derive_seed(settings.seed, "view", identifier, view))
    height, width = image.shape[:2]
    area = chance.uniform(settings.smallest_area, 1.0) * height * width
    aspect = np.exp(chance.uniform(np.log(3 / 4), np.log(4 / 3)))
    tall = int(min(height, max(32, np.sqrt(area / aspect))))
    wide = int(min(width, max(32, np.sqrt(area * aspect))))
    top, left = chance.integers(0, height - tall + 1), chance.integers(0, width - wide + 1)
    part = image[top : top + tall, left : left + wide]
    return np.ascontiguousarray(part[:, ::-1] if chance.random() < 0.5 else part)


def scale_down(image: NDArray[np.uint8], image_px: int) -> tuple[Tensor, tuple[int, int]]:
    """Return the student's pixels of a view, uint8 [3, S, S] with zeros around, and its scaled size."""
    scale = image_px / max(image.shape[:2])
    tall, wide = (max(1, int(side * scale + 0.5)) for side in image.shape[:2])
    picture = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    pixels = torch.zeros(3, image_px, image_px, dtype=torch.uint8)
    pixels[:, :tall, :wide] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return pixels, (tall, wide)


def pack(masks: Tensor) -> Tensor:
    """Return masks [..., 256, 256] as bits, uint8 [..., 8192]."""
    return torch.from_numpy(np.packbits(masks.flatten(-2).numpy(), axis=-1))


def unpack(bits: Tensor) -> Tensor:
    """Return masks, boolean [..., 256, 256], from their bits."""
    masks = torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1)).bool()
    return masks.unflatten(-1, (MASK_SIDE, MASK_SIDE))


class Tutor:
    """Ask the teacher about views, one at a time."""

    def __init__(self, teacher: Any, settings: ViewSettings) -> None:
        """Take a model with the surface of transformers' SamModel whose images are 1024 pixels wide."""
        self.teacher, self.settings, self.canvas = teacher, settings, Canvas(TEACHER_PX)

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8], identifier: str, view: int) -> dict[str, Tensor]:
        """Return what is kept of one view."""
        settings = self.settings
        part = cut_view(image, identifier, view, settings)
        pixels, placement = self.canvas.place(part)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            embedding = self.teacher.get_image_embeddings(pixels).float()
        kept = {"embeddings": embedding[0].half()}
        if view >= settings.prompted:
            return kept
        chance = np.random.default_rng(derive_seed(settings.seed, "points", identifier, view))
        tall, wide = placement.scaled
        points = torch.from_numpy(chance.random((settings.points, 2)) * (wide, tall)).float()
        given = {"image_embeddings": embedding, "input_points": points[None, :, None]}
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            one = self.teacher(**given, multimask_output=False)
            three = self.teacher(**given, multimask_output=True)
        inside = torch.zeros(MASK_SIDE, MASK_SIDE, dtype=torch.bool)
        fraction = MASK_SIDE / TEACHER_PX
        inside[: int(tall * fraction + 0.5), : int(wide * fraction + 0.5)] = True
        kept["points"] = points
        kept["answers"] = pack((one.pred_masks[0, :, 0] > 0) & inside)
        kept["guesses"] = pack((three.pred_masks[0] > 0) & inside)
        kept["answer_scores"] = one.iou_scores[0, :, 0].float()
        kept["guess_scores"] = three.iou_scores[0].float()
        return kept


def make_shards(tutor: Tutor, photos: Photos, folder: Path, *, share: int = 0, shares: int = 1) -> None:
    """Write this process's share of the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = -(-len(photos) // SHARD)
    wanted = [(view, block) for view in range(tutor.settings.views) for block in range(blocks)]
    for view, block in track(wanted[share::shares], total=None, label="teach", unit="shard"):
        path = shard_path(folder, view, block)
        if path.exists():
            continue
        rows = range(block * SHARD, min((block + 1) * SHARD, len(photos)))
        looks = [tutor.look(photo.image, photo.identifier, view) for photo in map(photos.__getitem__, rows)]
        columns = {name: torch.stack([look[name] for look in looks]).contiguous() for name in looks[0]}
        part = path.with_suffix(f".part-{os.getpid()}")
        save_file(columns, part)
        os.replace(part, path)


def load_shards(
    folder: Path, photos: Photos, settings: ViewSettings, image_px: int
) -> list[dict[str, Tensor]]:
    """Return the columns of each view for a student of ``image_px``, all its photos joined."""
    views = []
    for view in range(settings.views):
        parts = []
        for block in range(-(-len(photos) // SHARD)):
            part = load_file(shard_path(folder, view, block))
            pooled = functional.adaptive_avg_pool2d(part["embeddings"].float(), image_px // PATCH)
            rows = range(block * SHARD, min((block + 1) * SHARD, len(photos)))
            small = [
                scale_down(cut_view(photo.image, photo.identifier, view, settings), image_px)
                for photo in map(photos.__getitem__, rows)
            ]
            part["embeddings"] = pooled.half()
            part["pixels"] = torch.stack([pixels for pixels, _ in small])
            part["sizes"] = torch.tensor([size for _, size in small])
            if "points" in part:
                part["points"] = part["points"] * (image_px / TEACHER_PX)
            parts.append(part)
        views.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return views
