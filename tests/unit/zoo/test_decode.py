from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aerogel.zoo.decode import (
    FORMATS,
    PictureError,
    decode_labels,
    decode_picture,
    fit_arrays,
    read_size,
    to_array,
)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def ramp(width: int = 16, height: int = 12) -> np.ndarray:
    return (np.arange(width * height).reshape(height, width) * 255 // (width * height)).astype(np.uint8)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_opens(kind: str) -> None:
    array = decode_picture(encode(Image.fromarray(ramp()).convert("RGB"), kind), channels=1)
    assert array.shape == (1, 12, 16)
    assert np.abs(array[0].astype(int) - ramp()).max() < 12


def test_a_file_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    data = encode(Image.fromarray(ramp()))
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(decode_picture(tmp_path / "a.png"), decode_picture(data))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]
)
def test_channels_follow_the_picture_unless_asked(mode: str, channels: int) -> None:
    data = encode(Image.new("L", (9, 9), 255).convert(mode))
    assert decode_picture(data).shape == (channels, 9, 9)
    assert decode_picture(data, channels=1).shape == (1, 9, 9)
    assert decode_picture(data, channels=3).shape == (3, 9, 9)
    assert (decode_picture(data) == 255).all()


def test_sixteen_bits_are_scaled() -> None:
    values = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    array = decode_picture(encode(Image.fromarray(values)))
    assert np.array_equal(array[0], np.floor(values / 257 + 0.5).astype(np.uint8))
    assert (array.min(), array.max()) == (0, 255)


def test_values_beyond_sixteen_bits_are_refused() -> None:
    data = encode(Image.fromarray(np.full((9, 9), 70_000, dtype=np.int32)), "TIFF")
    with pytest.raises(PictureError, match="outside 16 bits"):
        decode_picture(data)


def test_floating_point_is_refused() -> None:
    with pytest.raises(PictureError, match="floating-point"):
        decode_picture(encode(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"))


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (51, 212)])
def test_transparency_lies_over_white(alpha: int, expected: int) -> None:
    for picture in (Image.new("RGBA", (9, 9), (40, 40, 40, alpha)), Image.new("LA", (9, 9), (40, alpha))):
        array = decode_picture(encode(picture))
        assert np.abs(array.astype(int) - expected).max() <= 1


def test_transparent_palette_entry_becomes_white() -> None:
    picture = Image.new("P", (9, 9), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    assert (decode_picture(encode(picture, transparency=1)) == 255).all()
    assert decode_picture(encode(picture))[:, 0, 0].tolist() == [200, 10, 10]


def test_cmyk_becomes_rgb() -> None:
    data = encode(Image.new("RGB", (16, 16), (200, 30, 90)).convert("CMYK"), "JPEG", quality=95)
    array = decode_picture(data)
    assert array.shape == (3, 16, 16)
    assert np.abs(array[:, 8, 8].astype(int) - [200, 30, 90]).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_upright(orientation: int) -> None:
    upright = ramp(16, 12)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = decode_picture(encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    assert np.array_equal(array[0], upright)


def test_size_scales_the_short_side_and_keeps_the_centre() -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    array = decode_picture(encode(Image.fromarray(wide)), size=10)
    assert array.shape == (1, 10, 10)
    assert array.mean() > 250
    assert decode_picture(encode(Image.fromarray(wide.T.copy())), size=10).mean() > 250


def test_shrinking_is_antialiased() -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    array = decode_picture(encode(Image.fromarray(checkers)), size=8)
    assert np.abs(array.astype(int) - 127).max() < 8


def test_a_large_photo_shrinks_alike_whether_or_not_the_decoder_helps() -> None:
    smooth = Image.fromarray(ramp()).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
    by_jpeg = decode_picture(encode(smooth, "JPEG", quality=95), size=32)
    by_png = decode_picture(encode(smooth), size=32)
    assert np.abs(by_jpeg.astype(int) - by_png).mean() < 2


def test_the_right_size_is_left_untouched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    assert np.array_equal(decode_picture(encode(Image.fromarray(noise)), size=12)[0], noise)


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_tiny_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError, match="smaller than 8 px"):
        decode_picture(encode(Image.new("L", size)))
    assert decode_picture(encode(Image.new("L", (8, 8)))).shape == (1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match="not an image"):
        decode_picture(content)


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_damage_is_told_and_never_escapes_as_another_error(kind: str, data: st.DataObject) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    content = bytearray(encode(Image.fromarray(noise), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = decode_picture(bytes(content), size=8)
        except PictureError as error:
            assert str(error)
        else:
            assert array.shape[1:] == (8, 8)


def test_fit_arrays_resizes_and_repeats() -> None:
    images = np.stack([ramp(10, 10), 255 - ramp(10, 10)])
    assert np.array_equal(fit_arrays(images, None, None)[:, 0], images)
    assert fit_arrays(images, 20, 1).shape == (2, 1, 20, 20)
    colour = fit_arrays(images, 8, 3)
    assert colour.shape == (2, 3, 8, 8)
    assert (colour == colour[:, :1]).all()
    assert colour.flags.writeable


def test_to_array_is_contiguous_and_planar() -> None:
    array = to_array(Image.new("RGB", (9, 8), (1, 2, 3)), None)
    assert array.flags.c_contiguous
    assert array[:, 0, 0].tolist() == [1, 2, 3]
    assert array.shape == (3, 8, 9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_says_the_upright_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(ramp()), "JPEG", exif=exif)
    assert read_size(data) == decode_picture(data).shape[1:]


def test_a_header_that_is_none_is_refused() -> None:
    with pytest.raises(PictureError, match="known format"):
        read_size(b"nothing")
    with pytest.raises(PictureError, match="unreadable image"):
        read_size(Path("missing.png"))


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("L", "BMP"), ("I;16", "TIFF")]
)
def test_label_maps_keep_their_numbers(mode: str, kind: str) -> None:
    top = 60_000 if mode == "I;16" else 200
    labels = (np.arange(96).reshape(8, 12) * top // 96).astype(np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(labels)
    if mode == "P":
        picture = Image.fromarray(labels).convert("L")
        picture.putpalette([255 - level // 3 for level in range(768)])
    found = decode_labels(encode(picture, kind))
    assert found.dtype == np.int32
    assert np.array_equal(found, labels)


def test_label_maps_are_not_guessed_at() -> None:
    with pytest.raises(PictureError, match="mode RGB"):
        decode_labels(encode(Image.fromarray(ramp()).convert("RGB")))
    with pytest.raises(PictureError, match="lossless format"):
        decode_labels(encode(Image.fromarray(ramp()), "JPEG"))
    with pytest.raises(PictureError, match="unreadable label map"):
        decode_labels(encode(Image.fromarray(ramp()))[:60])
