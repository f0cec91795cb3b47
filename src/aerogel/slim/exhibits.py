"""What a slimming shows of itself: masks before and after on photos that were kept back, and their time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from aerogel.core.files import write_bytes_atomic
from aerogel.measure import measure_latency
from aerogel.measure.masks import boundary_band
from aerogel.slim.agreement import look_for_objects
from aerogel.slim.canvas import Canvas
from aerogel.slim.segmenter import Segmenter, evaluating
from aerogel.zoo.objects import SegmentedPhoto
from aerogel.zoo.photos import Photo

KIND = "slim-exhibits"
SIDES = ("before", "after")
_MOST_PHOTOS = 6
_WIDEST_PX = 480
_LINE_SHARE = 0.003  # of the photo's diagonal
# Hues a golden angle apart, so that neighbours in the list differ however many there are.
_TURN = 0.618034


def write_exhibits(student: Any, teacher: Any, photos: Iterable[Photo], work: Path) -> Mapping[str, Any]:
    """Write the masks of both models on some photos as JPEG files; return their names and both latencies.

    The masks are for the same points, those at which the teacher found something. Latencies are of one image
    through the encoder, one thread on a CPU.
    """
    files: list[dict[str, str]] = []
    if hasattr(teacher, "mask_decoder"):
        for photo in islice(look_for_objects(teacher, photos, grid=4, most=5), _MOST_PHOTOS):
            names = {side: f"{len(files)}-{side}.jpg" for side in SIDES}
            for side, model in zip(SIDES, (teacher, student), strict=True):
                write_bytes_atomic(work / names[side], _encode(draw_masks(photo, model)))
            files.append({"photo": photo.identifier, **names})
    latencies = {
        side: time_encoder(model).to_dict() for side, model in zip(SIDES, (teacher, student), strict=True)
    }
    return {"pictures": files, "latency": latencies}


def draw_masks(photo: SegmentedPhoto, model: Any) -> NDArray[np.uint8]:
    """Return the photo with the model's masks for its points in colour, and the points: uint8 [H, W, 3].

    Smaller masks lie on larger ones, each with a line along its border.
    """
    points = np.empty((0, 2)) if photo.points is None else photo.points
    segmenter = Segmenter(model, Canvas.of(model))
    masks = segmenter.encode(photo.image).segment("stored", points).cpu().numpy()
    edges = boundary_band(masks, share=_LINE_SHARE).numpy()
    plain = photo.image.astype(np.float64)
    picture = plain.copy()
    for number in np.argsort(-masks.sum((1, 2)), kind="stable").tolist():
        colour = _choose_colour(number)
        picture[masks[number]] = 0.45 * plain[masks[number]] + 0.55 * colour
        picture[edges[number]] = colour
    for number, (x, y) in enumerate(points):
        radius = max(2, photo.image.shape[1] // 120)
        rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
        away = (rows - y) ** 2 + (columns - x) ** 2
        picture[away <= (radius + 1.5) ** 2] = 255.0
        picture[away <= radius**2] = 0.5 * _choose_colour(number)
    return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)


def time_encoder(model: Any) -> Any:
    """Measure the latency of a model's image encoder for one image, one thread."""
    encoder = getattr(model, "vision_encoder", model)
    first = next(encoder.parameters())
    side = Canvas.of(model).size_px
    pixels = torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype)

    def act() -> None:
        with torch.inference_mode(), evaluating(encoder):
            encoder(pixels)

    return measure_latency(act, name="encoder", warmup=1, repeats=5, device=str(first.device))


def _choose_colour(number: int) -> NDArray[np.float64]:
    hue = (0.58 + number * _TURN) % 1.0 * 6
    wheel = np.array([abs(hue - 3) - 1, 2 - abs(hue - 2), 2 - abs(hue - 4)]).clip(0, 1)
    return np.asarray(40 + 200 * wheel)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    if max(picture.size) > _WIDEST_PX:
        scale = _WIDEST_PX / max(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
