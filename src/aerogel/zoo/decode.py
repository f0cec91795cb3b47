"""Turn stored pictures of any common kind into uint8 arrays of one size and channel count."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from aerogel.errors import DataError
from aerogel.zoo.request import SMALLEST_PX

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
ORIENTATION_TAG, SIDEWAYS = 0x0112, (5, 6, 7, 8)
GREY_MODES = ("1", "L", "LA", "La")
FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged files, found by feeding them damaged files."""


class PictureError(DataError):
    """One picture cannot be used; the message is short because it is listed beside others."""


def decode_picture(
    content: bytes | Path, *, size: int | None = None, channels: Literal[1, 3] | None = None
) -> np.ndarray:
    """Decode a file or its bytes to uint8 [C, H, W].

    Turned upright by its EXIF tag; 16 bits scaled to 8; transparency laid over white; palette, CMYK
    and other colour spaces to RGB; the first frame of several. With `size` the short side is scaled
    to it (antialiased bicubic) and the centre square cut out. channels None keeps grey grey.

    Raises:
        PictureError: not a readable picture, smaller than 8 px, or with an unknown range of values.
    """
    try:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(stream, formats=FORMATS) as picture:
            if min(picture.size) < SMALLEST_PX:
                width, height = picture.size
                raise PictureError(f"{width}x{height} px, smaller than {SMALLEST_PX} px")
            if size is not None:
                picture.draft(picture.mode, (2 * size, 2 * size))
            return to_array(_fit(_flatten(picture), size), channels)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not an image in a known format") from error
    except FAILURES as error:
        raise PictureError(f"unreadable image ({error or type(error).__name__})") from error


def read_size(content: bytes | Path) -> tuple[int, int]:
    """Read height and width in pixels from a picture's header, as they are once it is turned upright.

    Raises:
        PictureError: not a readable header.
    """
    try:
        with Image.open(
            io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS
        ) as it:
            width, height = it.size
            return (width, height) if it.getexif().get(ORIENTATION_TAG) in SIDEWAYS else (height, width)
    except UnidentifiedImageError as error:
        raise PictureError("not an image in a known format") from error
    except FAILURES as error:
        raise PictureError(f"unreadable image ({error or type(error).__name__})") from error


def decode_labels(content: bytes | Path) -> np.ndarray:
    """Decode a label map to int32 [H, W]: the pixels' values as stored, not scaled and not turned.

    Raises:
        PictureError: not a readable picture, stored with loss, or with pixels that are not single numbers.
    """
    try:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(stream, formats=LOSSLESS) as picture:
            if picture.mode not in LABEL_MODES:
                raise PictureError(f"a label map of mode {picture.mode}, not one number a pixel")
            return np.asarray(picture).astype(np.int32)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"not a label map in a lossless format ({', '.join(LOSSLESS)})") from error
    except FAILURES as error:
        raise PictureError(f"unreadable label map ({error or type(error).__name__})") from error


def to_array(picture: Image.Image, channels: Literal[1, 3] | None) -> np.ndarray:
    """Convert an L or RGB picture to uint8 [C, H, W]; channels None keeps its own."""
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    array = np.array(picture, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def fit_arrays(images: np.ndarray, size: int | None, channels: Literal[1, 3] | None) -> np.ndarray:
    """Bring grey images uint8 [N, H, W] to uint8 [N, C, size, size]; None keeps size or channels."""
    if size is not None and images.shape[1:] != (size, size):
        fitted = np.empty((len(images), size, size), dtype=np.uint8)
        for row, image in enumerate(images):
            fitted[row] = np.asarray(_fit(Image.fromarray(image), size))
        images = fitted
    return np.repeat(images[:, None], channels or 1, axis=1) if channels == 3 else images[:, None]


def _fit(picture: Image.Image, size: int | None) -> Image.Image:
    if size is None or picture.size == (size, size):
        return picture
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _flatten(picture: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        raise PictureError("floating-point pixels of unknown range (save it with 8 or 16 bits)")
    if upright.mode.startswith("I"):
        return _reduce_depth(upright)
    grey = upright.mode in GREY_MODES
    if upright.has_transparency_data:
        paper = Image.new("RGBA", upright.size, "white")
        paper.alpha_composite(upright.convert("RGBA"))
        upright = paper
    return upright.convert("L" if grey else "RGB")


def _reduce_depth(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(f"pixels from {values.min()} to {values.max()}, outside 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
