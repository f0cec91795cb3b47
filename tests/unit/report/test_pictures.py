from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from aerogel.errors import DataError
from aerogel.report.pictures import encode_data_uri, encode_picture, read_size


@pytest.mark.parametrize(
    ("shape", "mode"), [((5, 7), "L"), ((5, 7, 1), "L"), ((5, 7, 3), "RGB"), ((5, 7, 4), "RGBA")]
)
def test_arrays_become_png_with_the_same_pixels(shape: tuple[int, ...], mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_picture(pixels))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (7, 5))
        assert np.array_equal(np.asarray(picture), pixels.reshape(np.asarray(picture).shape))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_picture_files_are_kept_as_they_are(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "teal").save(buffer, form)
    data = buffer.getvalue()
    assert encode_picture(data) is data
    assert read_size(data) == (6, 4, f"image/{form.lower()}")
    head, _, body = encode_data_uri(data).partition(",")
    assert head == f"data:image/{form.lower()};base64"
    assert base64.b64decode(body) == data


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8), np.float32),
        np.zeros((0, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        "not an array",
    ],
)
def test_arrays_that_are_no_picture_are_refused(array: object) -> None:
    with pytest.raises(DataError, match=r"expected a picture .*; got .*; what to do: "):
        encode_picture(array)  # type: ignore[arg-type]


def test_damaged_and_foreign_files_are_refused() -> None:
    whole = encode_picture(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    gif = io.BytesIO()
    Image.new("RGB", (4, 4)).save(gif, "GIF")
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    for bad in (b"", whole[: len(whole) // 2], svg, gif.getvalue()):
        with pytest.raises(DataError, match="whole PNG, JPEG or WebP"):
            encode_picture(bad)
