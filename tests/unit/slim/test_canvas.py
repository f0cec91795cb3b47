from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aerogel.errors import ConfigError, DataError
from aerogel.slim.canvas import Canvas, Placement

SIZES = [(48, 64), (64, 48), (37, 101), (101, 37), (30, 30), (200, 151), (5, 90)]


def photo(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def processor(size_px: int):  # type: ignore[no-untyped-def]
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    return SamImageProcessorPil(
        size={"longest_edge": size_px}, pad_size={"height": size_px, "width": size_px}
    )


@pytest.mark.parametrize("size", SIZES)
def test_photos_are_placed_as_transformers_places_them(size: tuple[int, int]) -> None:
    image = photo(size)
    pixels, placement = Canvas(64).place(image)
    theirs = processor(64)(image, return_tensors="pt")
    assert pixels.shape == (1, 3, 64, 64)
    assert torch.allclose(pixels, theirs["pixel_values"].float(), atol=1e-6)
    assert placement.original == tuple(map(int, theirs["original_sizes"][0]))
    assert placement.scaled == tuple(map(int, theirs["reshaped_input_sizes"][0]))


@pytest.mark.parametrize("size", SIZES)
def test_masks_come_back_as_transformers_brings_them_back(size: tuple[int, int]) -> None:
    _, placement = Canvas(64).place(photo(size))
    logits = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(0))
    ours = placement.restore_masks(logits, 64)
    theirs = processor(64).post_process_masks(
        [logits[:, None]], [placement.original], [placement.scaled], binarize=False
    )[0]
    assert torch.equal(ours, theirs[:, 0])


def test_coordinates_move_as_transformers_moves_them() -> None:
    from transformers.models.sam.processing_sam import SamProcessor

    size = (37, 101)
    _, placement = Canvas(64).place(photo(size))
    points = np.array([[0.0, 0.0], [100.0, 36.0], [50.5, 7.25]])
    boxes = np.array([[1.0, 2.0, 99.0, 30.0]])
    mover = SimpleNamespace(image_processor=processor(64))
    theirs = SamProcessor._normalize_coordinates(mover, 64, points, size)
    assert np.allclose(placement.move_points(points), theirs, atol=1e-12)
    theirs = SamProcessor._normalize_coordinates(mover, 64, boxes, size, is_bounding_box=True)
    assert np.allclose(placement.move_points(boxes), theirs, atol=1e-12)


def test_a_photo_of_the_canvas_s_size_is_not_touched() -> None:
    image = photo((64, 64))
    pixels, placement = Canvas(64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).place(image)
    assert torch.equal((pixels[0] * 255).round().byte(), torch.from_numpy(image).permute(2, 0, 1))
    assert placement == Placement((64, 64), (64, 64))
    logits = torch.randn(1, 64, 64)
    assert torch.equal(placement.restore_masks(logits, 64), logits)


def test_the_size_comes_from_the_configuration() -> None:
    vision = SimpleNamespace(image_size=512)
    assert Canvas.of(SimpleNamespace(config=SimpleNamespace(vision_config=vision))).size_px == 512
    assert Canvas.of(SimpleNamespace(config=vision)).size_px == 512
    with pytest.raises(DataError, match="says its image size"):
        Canvas.of(object())


def test_bad_photos_and_sizes_are_refused() -> None:
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError, match=r"uint8 \[H, W, 3\]"):
            Canvas(64).place(bad)
    with pytest.raises(ConfigError, match="at least 1 px"):
        Canvas(0)
