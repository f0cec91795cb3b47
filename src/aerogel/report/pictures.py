"""Turn pixels into something an HTML page can hold."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from aerogel.errors import DataError, compose

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def encode_picture(image: bytes | npt.NDArray[np.uint8]) -> bytes:
    """Return ``image`` as the bytes of a picture file.

    Arrays, uint8 of shape [H, W] or [H, W, C] with C in {1, 3, 4}, become PNG. Bytes have to be a whole PNG,
    JPEG or WebP file and come back as they are.

    Raises:
        DataError: the bytes are no such file, or the array has another type or shape.
    """
    if isinstance(image, bytes):
        read_size(image)
        return image
    from PIL import Image

    kind, shape = str(getattr(image, "dtype", type(image).__name__)), tuple(getattr(image, "shape", ()))
    grey = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    if kind != "uint8" or not (grey or (len(shape) == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise DataError(
            compose(
                "a picture as PNG bytes or as a uint8 array of shape [H, W] or [H, W, 1|3|4]",
                f"{kind} of shape {list(shape)}",
                "scale it to 0..255, convert it to uint8 and put the channels last",
            )
        )
    buffer = io.BytesIO()
    Image.fromarray(image.reshape(shape[:2]) if grey else image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_size(data: bytes) -> tuple[int, int, str]:
    """Return width, height (pixels) and MIME type of a picture file, after checking that it is whole.

    Raises:
        DataError: no PNG, JPEG or WebP file, or a damaged one.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=tuple(_TYPES)) as picture:
            width, height, form = picture.width, picture.height, str(picture.format)
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            compose(
                "the bytes of a whole PNG, JPEG or WebP file",
                f"{len(data)} bytes that do not decode ({error})",
                "pass the file's own bytes, or the pixels as a uint8 array",
            )
        ) from error
    return width, height, _TYPES[form]


def encode_data_uri(data: bytes) -> str:
    """Return a picture file as a ``data:`` address, so that a page needs no second file."""
    mime = read_size(data)[2]
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
