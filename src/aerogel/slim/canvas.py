"""Place a photo on the square that a segmenter sees, and bring its masks back to the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from aerogel.errors import ConfigError, DataError, compose

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Placement:
    """Say where a photo lies on a canvas: its own (height, width), and those that it was scaled to."""

    original: tuple[int, int]
    scaled: tuple[int, int]

    def move_points(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale points [N, 2] or boxes [N, 4], x before y, from the photo to the canvas."""
        (height, width), (tall, wide) = self.original, self.scaled
        factors = np.array([wide / width, tall / height] * (coordinates.shape[1] // 2))
        return np.asarray(coordinates * factors)

    def restore_masks(self, logits: Tensor, canvas_px: int) -> Tensor:
        """Scale logits [N, h, w] of the whole canvas to the photo, [N, H, W].

        Bilinear to the canvas, the padding cut off, bilinear to the photo: as transformers' processor for SAM
        does. A mask is where the result is above the threshold, which is zero for SAM.
        """
        large = interpolate(logits[:, None], (canvas_px, canvas_px), mode="bilinear", align_corners=False)
        part = large[..., : self.scaled[0], : self.scaled[1]]
        return interpolate(part, self.original, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class Canvas:
    """The square of ``size_px`` pixels that a model sees, and how its values are normalised."""

    size_px: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size_px < 1 or min(self.std) <= 0:
            got = f"size_px={self.size_px!r}, std={self.std!r}"
            raise ConfigError(compose("a size of at least 1 px and positive std", got, "correct them"))

    @classmethod
    def of(cls, model: Any) -> Canvas:
        """Make the canvas of a model, by the image size in its configuration.

        Raises:
            DataError: the configuration has none.
        """
        config = getattr(model, "config", None)
        size = getattr(getattr(config, "vision_config", config), "image_size", None)
        if not isinstance(size, int):
            remedy = "pass canvas=Canvas(size_px) with the size that the model was trained at"
            got = f"{type(model).__name__}, whose configuration has no vision_config.image_size"
            raise DataError(compose("a model that says its image size", got, remedy))
        return cls(size)

    def place(self, image: NDArray[np.uint8]) -> tuple[Tensor, Placement]:
        """Scale a photo uint8 [H, W, 3] so that its long side fills the canvas; give pixels and placement.

        Pixels are float32 [1, 3, size, size]: scaled bilinearly with antialiasing, divided by 255,
        normalised, then padded with zeros below or on the right, as transformers' processor for SAM does.

        Raises:
            DataError: another shape or type.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            got = f"{image.dtype} {list(image.shape)}"
            raise DataError(compose("a photo uint8 [H, W, 3]", got, "convert it to 8-bit RGB"))
        scaled = scale_photo(image, self.size_px)
        (height, width), (tall, wide) = image.shape[:2], scaled.shape[:2]
        values = torch.from_numpy(scaled).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        values = (values - mean[:, None, None]) / std[:, None, None]
        pixels = pad(values, (0, self.size_px - wide, 0, self.size_px - tall))[None]
        return pixels, Placement((height, width), (tall, wide))


def scale_photo(image: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """Scale a photo uint8 [H, W, 3] so that its long side is ``longest_px``, bilinearly with antialiasing."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    tall, wide = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    return np.array(Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR))
