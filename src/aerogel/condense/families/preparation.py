"""What a model's image processor does to an image, read from its config and done to tensors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from aerogel.errors import DataError, compose

# Pillow takes the pixel under the centre of the new one, as "nearest-exact" does and "nearest" does not.
_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}
_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_NOT_REPRODUCED = ("do_pad", "do_reduce_labels", "do_flip_channel_order")
_NO_RESIZE_CROP_FROM = 384
LARGEST_SIDE = 4096
_LONGEST = 300


@dataclass(frozen=True)
class Preparation:
    """Say what a classifier's image processor does to an image: resize, cut out the centre, scale, normalise.

    ``resize`` and ``crop`` are (height, width) in pixels or None where the step is left out; ``filter`` is
    "nearest", "bilinear" or "bicubic"; ``factor`` multiplies pixels in [0, 1] before ``mean`` and ``std``,
    one value per channel, are applied.
    """

    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    filter: str
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Preparation:
        """Read what :meth:`to_dict` returned."""
        return Preparation(
            resize=tuple(data["resize"]) if data["resize"] else None,
            crop=tuple(data["crop"]) if data["crop"] else None,
            filter=str(data["filter"]),
            factor=float(data["factor"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )


def prepare(images: Tensor, wanted: Preparation, mean: Tensor, std: Tensor) -> Tensor:
    """Do to ``images`` [B, C, S, S] in [0, 1] what ``wanted`` says.

    ``mean`` and ``std`` [C, 1, 1] are its own, on the images' device.
    """
    if wanted.resize is not None and tuple(images.shape[-2:]) != wanted.resize:
        smooth = wanted.filter != "nearest"
        images = functional.interpolate(
            images,
            size=wanted.resize,
            mode=_MODES[wanted.filter],
            align_corners=False if smooth else None,
            antialias=smooth,
        ).clamp(0.0, 1.0)
    if wanted.crop is not None:
        images = _cut_centre(images, wanted.crop)
    return (images * wanted.factor - mean) / std


def _cut_centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle [B, C, *size] of ``images`` [B, C, H, W], with zeros where they are smaller."""
    height, width = size
    low_y, low_x = max(0, height - images.shape[-2]), max(0, width - images.shape[-1])
    if low_y or low_x:
        top, left = math.ceil(low_y / 2), math.ceil(low_x / 2)
        images = functional.pad(images, (left, low_x - left, top, low_y - top))
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def read_preparation(processor: dict[str, Any], channels: int) -> Preparation:
    """Read the config of a transformers image processor, its defaults filled in, for square images.

    Raises:
        DataError: it asks for a step that is not reproduced here.
    """
    odd = [name for name in _NOT_REPRODUCED if processor.get(name)]
    resample = int(processor.get("resample") or 0)
    if processor.get("do_resize") and resample not in _FILTERS:
        odd.append(f"resample={resample}")
    if odd:
        raise DataError(
            compose(
                "an image processor that resizes, crops, rescales and normalises",
                f"one with {', '.join(odd)}",
                "choose another classifier, or train a teacher here",
            )
        )
    resize, crop = None, None
    if processor.get("do_resize"):
        resize = _square(processor.get("size") or {}, "size")
        share = processor.get("crop_pct")
        if share is not None and resize[0] < _NO_RESIZE_CROP_FROM:
            # Up to this size the ConvNeXt family enlarges first and then cuts the centre out.
            crop, resize = resize, (int(resize[0] / share), int(resize[1] / share))
    if processor.get("do_center_crop"):
        crop = _square(processor.get("crop_size") or {}, "crop_size")
    factor = 255.0 * float(processor["rescale_factor"]) if processor.get("do_rescale") else 255.0
    mean, std = _read_statistics(processor, channels)
    return Preparation(resize, crop, _FILTERS.get(resample, "bilinear"), factor, mean, std)


def understand_processor(name: str, processor: dict[str, Any], channels: int) -> Preparation:
    """Read the config of the image processor of ``name``, which may come from anybody.

    Raises:
        DataError: it asks for what is not reproduced here, or cannot be.
    """
    try:
        found = read_preparation(processor, channels)
    except DataError as failure:
        raise DataError(f"the image processor of {name!r}: {failure}") from failure
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as failure:
        got = repr(failure)[:_LONGEST]
        raise DataError(
            compose(f"an image processor's config in {name!r}", got, "save or fetch it again")
        ) from failure
    sides = (*(found.resize or ()), *(found.crop or ()))
    shares = (*found.mean, *found.std, found.factor)
    if (
        not all(0 < side <= LARGEST_SIDE for side in sides)
        or not all(map(math.isfinite, shares))
        or not {len(found.mean), len(found.std)} <= {1, channels}
        or min(found.std) <= 0.0
    ):
        raise DataError(
            compose(
                f"a processor for sides up to {LARGEST_SIDE} pixels and {channels} channels in {name!r}",
                f"size {sides}, mean {found.mean[:4]}, std {found.std[:4]}, factor {found.factor}"[:_LONGEST],
                "save or fetch it again",
            )
        )
    return found


def _read_statistics(processor: dict[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean to subtract and the deviation to divide by, one value per channel.

    EfficientNet's processor may also subtract 1 after rescaling (``rescale_offset``) and divide by the
    deviation once more (``include_top``).
    """
    mean, std = (0.0,) * channels, (1.0,) * channels
    if processor.get("do_normalize"):
        mean = tuple(float(value) for value in processor["image_mean"])
        std = tuple(float(value) for value in processor["image_std"])
    if processor.get("do_rescale") and processor.get("rescale_offset"):
        mean = tuple(value + 1.0 for value in mean)
    if processor.get("include_top"):
        again = (float(value) for value in processor["image_std"])
        std = tuple(value * more for value, more in zip(std, again, strict=True))
    return mean, std


def _square(size: dict[str, Any], name: str) -> tuple[int, int]:
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if size.get("shortest_edge"):
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise DataError(
        compose(
            f"an image processor whose {name} has a height and a width, or a shortest edge",
            f"{size}",
            "name these",
        )
    )
