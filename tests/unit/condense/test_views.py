"""A view is a function of (seed, epoch, sample); batch, workers, processes and restarts do not matter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aerogel.condense.config import ViewConfig
from aerogel.condense.views import Views, crop
from aerogel.errors import DataError

POPULATION = 13
PLAIN = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, cutmix=0.0)
EVER_PARTNERS = [61, 42, 8]
EVER_PATCHES = [[2, 3, 29, 30], [7, 4, 24, 21], [1, 0, 27, 26]]
EVER_BOXES = [
    [0.5069650734558947, 0.4954140856452994, -0.49097122915825236, 0.4763440695428189],
    [-0.5047077435865641, 0.5, -0.4705961681670394, 0.5],
    [0.5, -0.5344263725952537, 0.5, 0.41308789268696916],
]
KINDS = [(1, 8, 1), (3, 12, 1), (3, 9, 1), (1, 12, 2), (3, 12, 3)]  # channels, size, tiles


def noise(channels: int, size: int, count: int = POPULATION) -> Tensor:
    made = np.random.default_rng(channels * size).integers(0, 256, (count, channels, size, size))
    return torch.from_numpy(made.astype(np.uint8))


def row_bytes(views: Tensor) -> list[bytes]:
    return [view.numpy().tobytes() for view in views]


def epoch_bytes(views: Views, images: Tensor, epoch: int) -> list[bytes]:
    return row_bytes(views.render(images, epoch, np.arange(len(images)))[0])


class Rendered(Dataset[tuple[int, Tensor]]):
    """Serve the views of one epoch one by one."""

    def __init__(self, views: Views, images: Tensor, epoch: int) -> None:
        self.views, self.images, self.epoch = views, images, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, sample: int) -> tuple[int, Tensor]:
        return sample, self.views.render(self.images, self.epoch, np.array([sample]))[0][0]


# --- addressing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size", "tiles"), KINDS)
@settings(max_examples=15)
@given(st.lists(st.integers(0, POPULATION - 1), min_size=1, max_size=20), st.integers(0, 3))
def test_neighbours_and_order_in_a_batch_do_not_matter(
    channels: int, size: int, tiles: int, samples: list[int], epoch: int
) -> None:
    images = noise(channels, size)
    views = Views(ViewConfig(cutmix=0.7), 5, POPULATION, tiles)
    whole = epoch_bytes(views, images, epoch)
    rendered, found = views.render(images, epoch, np.array(samples))
    assert rendered.dtype == torch.float32
    assert rendered.shape == (len(samples), channels, size, size)
    assert found.samples.tolist() == samples
    assert row_bytes(rendered) == [whole[sample] for sample in samples]


@pytest.mark.parametrize("batch_size", [1, 2, 5, POPULATION])
def test_batch_sizes_do_not_matter(batch_size: int) -> None:
    images = noise(3, 12)
    views = Views(ViewConfig(cutmix=1.0), 1, POPULATION)
    parts = np.split(np.arange(POPULATION), range(batch_size, POPULATION, batch_size))
    pieces = [data for part in parts for data in row_bytes(views.render(images, 2, part)[0])]
    assert pieces == epoch_bytes(views, images, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_workers_do_not_matter(workers: int) -> None:
    images = noise(3, 12)
    views = Views(ViewConfig(cutmix=0.7), 9, POPULATION)
    expected = epoch_bytes(views, images, 4)
    loader = DataLoader(
        Rendered(views, images, 4),
        batch_size=4,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(workers),
    )
    served = {
        int(sample): view.numpy().tobytes()
        for samples, shown in loader
        for sample, view in zip(samples, shown, strict=True)
    }
    assert served == dict(enumerate(expected))


def test_processes_and_threads_do_not_matter(tmp_path: Path) -> None:
    images = noise(3, 12)
    np.save(tmp_path / "images.npy", images.numpy())
    script = (
        "import sys, numpy as np, torch\n"
        "from aerogel.condense.config import ViewConfig\n"
        "from aerogel.condense.views import Views\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "images = torch.from_numpy(np.load('images.npy'))\n"
        "views = Views(ViewConfig(cutmix=0.7), 9, len(images))\n"
        "samples = np.arange(int(sys.argv[1]), len(images), 2)\n"
        "np.save(sys.argv[2], views.render(images, 4, samples)[0].numpy())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    halves = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(part), f"{part}.npy", str(part + 1)],
            cwd=tmp_path,
            env=environment,
        )
        for part in (0, 1)
    ]
    assert [half.wait(120) for half in halves] == [0, 0]
    joined: list[bytes] = [b""] * POPULATION
    for part in (0, 1):
        joined[part::2] = row_bytes(torch.from_numpy(np.load(tmp_path / f"{part}.npy")))
    assert joined == epoch_bytes(Views(ViewConfig(cutmix=0.7), 9, POPULATION), images, 4)


def test_a_restart_does_not_matter() -> None:
    images = noise(1, 8)
    straight = Views(ViewConfig(cutmix=1.0), 3, POPULATION)
    epochs = [epoch_bytes(straight, images, epoch) for epoch in range(6)]
    torch.manual_seed(99)
    resumed = Views(ViewConfig(cutmix=1.0), 3, POPULATION)
    assert [epoch_bytes(resumed, images, epoch) for epoch in (5, 3, 4, 3)] == [
        epochs[e] for e in (5, 3, 4, 3)
    ]
    assert len({view for epoch in epochs for view in epoch}) == 6 * POPULATION


def test_seed_epoch_and_sample_each_change_the_view() -> None:
    images = noise(1, 8, count=1).expand(POPULATION, -1, -1, -1)
    shown = {
        view
        for seed in (0, 1)
        for epoch in (0, 1)
        for view in epoch_bytes(Views(ViewConfig(), seed, POPULATION), images, epoch)
    }
    assert len(shown) == 4 * POPULATION


def test_the_addresses_are_those_of_every_release() -> None:
    """Stored labels point at views by number; another geometry for an old number would make them wrong."""
    found = Views(ViewConfig(cutmix=1.0), 7, 100, tiles=2).parameters(3, np.array([0, 41, 99]), size=32)
    assert found.partners.tolist() == EVER_PARTNERS
    assert found.patches.tolist() == EVER_PATCHES
    assert found.boxes == pytest.approx(np.array(EVER_BOXES), rel=1e-9)


# --- geometry -----------------------------------------------------------------------------------------------


def reflect(position: float, size: int) -> float:
    """Fold a pixel position back into the image about its outer edges, -0.5 and size - 0.5."""
    folded = abs(position + 0.5) % (2 * size)
    folded = 2 * size - folded if folded > size else folded
    return min(max(folded - 0.5, 0.0), size - 1.0)


def sample_pixel(plane: Sequence[Sequence[float]], x: float, y: float) -> float:
    """Interpolate ``plane`` (rows of values) between its four pixels around (x, y)."""
    height, width = len(plane), len(plane[0])
    x, y = reflect(x, width), reflect(y, height)
    left, top = math.floor(x), math.floor(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = plane[top][left] * (1 - (x - left)) + plane[top][right] * (x - left)
    lower = plane[bottom][left] * (1 - (x - left)) + plane[bottom][right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def slow_crop(image: Tensor, box: Sequence[float], size: int) -> list[Any]:
    """Resample one image [C, H, W] in plain Python."""
    centre_x, centre_y, half_width, half_height = (float(value) for value in box)
    planes = (image.double() / 255.0).tolist()
    height, width = len(planes[0]), len(planes[0][0])
    points = [(2 * index + 1) / size - 1 for index in range(size)]
    columns = [((centre_x + half_width * point + 1) * width - 1) / 2 for point in points]
    rows = [((centre_y + half_height * point + 1) * height - 1) / 2 for point in points]
    return [[[sample_pixel(plane, x, y) for x in columns] for y in rows] for plane in planes]


INSIDE = [(0.1, -0.2, 0.7, 0.5), (0.0, 0.0, 1.0, 1.0), (-0.4, 0.3, -0.6, 0.7), (0.75, 0.75, 0.25, 0.25)]
BEYOND = [(0.9, -0.8, 0.7, 0.9), (0.0, 0.0, -1.6, 1.4), (1.5, 0.0, 2.0, 0.3)]


@pytest.mark.parametrize("box", INSIDE + BEYOND)
@pytest.mark.parametrize("size", [8, 11])
def test_crop_equals_plain_python(box: tuple[float, ...], size: int) -> None:
    image = noise(3, 9, count=1)
    fast = crop(image, np.array([box]), size)[0]
    assert fast.numpy() == pytest.approx(np.array(slow_crop(image[0], box, size)), abs=1e-5)


@pytest.mark.parametrize("tiles", [1, 2])
def test_a_view_equals_plain_python(tiles: int) -> None:
    images = noise(3, 8)
    views = Views(ViewConfig(crop_scale=(0.3, 1.0), cutmix=1.0), 11, POPULATION, tiles)
    shown, found = views.render(images, 0, np.arange(5))
    boxes = views.boxes(0, np.arange(POPULATION))

    def slow_view(sample: int) -> np.ndarray:
        """Cut the tile that holds the box's centre and resample that."""
        side, picture = 8 // tiles, images[sample]
        column, row = ((boxes[sample, axis] + 1) * 4 // side for axis in (0, 1))
        tile = picture[
            :, int(row) * side : (int(row) + 1) * side, int(column) * side : (int(column) + 1) * side
        ]
        local = [
            boxes[sample, 0] * tiles + tiles - 1 - 2 * column,
            boxes[sample, 1] * tiles + tiles - 1 - 2 * row,
            boxes[sample, 2] * tiles,
            boxes[sample, 3] * tiles,
        ]
        return np.array(slow_crop(tile, local, 8))

    for sample in range(5):
        left, top, right, bottom = found.patches[sample]
        expected = slow_view(sample)
        donor = slow_view(int(found.partners[sample]))
        expected[:, top:bottom, left:right] = donor[:, top:bottom, left:right]
        assert shown[sample].numpy() == pytest.approx(expected, abs=1e-5)


def test_without_augmentation_a_view_is_the_image() -> None:
    images = noise(3, 12)
    shown, found = Views(PLAIN, 0, POPULATION).render(images, 0, np.arange(POPULATION))
    assert torch.allclose(shown, images / 255.0, atol=1e-5)
    assert found.partners.tolist() == found.samples.tolist()
    assert found.mixing_weight(12).tolist() == [1.0] * POPULATION


def test_flips_mirror_left_and_right_as_often_as_asked() -> None:
    images = noise(3, 12)
    always = Views(ViewConfig((1.0, 1.0), (1.0, 1.0), flip=1.0, cutmix=0.0), 0, POPULATION)
    shown, _ = always.render(images, 0, np.arange(POPULATION))
    assert torch.allclose(shown, (images / 255.0).flip(-1), atol=1e-5)
    boxes = Views(ViewConfig(flip=0.3), 0, 4000).boxes(0, np.arange(4000))
    assert np.mean(boxes[:, 2] < 0) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 4000))


@given(
    low=st.floats(0.05, 1.0),
    high=st.floats(0.05, 1.0),
    stretch=st.floats(1.0, 2.0),
    tiles=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_crops_keep_area_ratio_and_place(
    low: float, high: float, stretch: float, tiles: int, seed: int
) -> None:
    low, high = min(low, high), max(low, high)
    config = ViewConfig(crop_scale=(low, high), crop_ratio=(1 / stretch, stretch))
    boxes = Views(config, seed, 64, tiles).boxes(1, np.arange(64))
    x, y, half_width, half_height = boxes[:, 0], boxes[:, 1], np.abs(boxes[:, 2]), boxes[:, 3]
    area, ratio = half_width * half_height * tiles**2, half_width / half_height
    assert np.all(area <= high + 1e-9)
    whole = (half_width * tiles < 1 - 1e-9) & (half_height * tiles < 1 - 1e-9)
    assert np.all(area[whole] >= low - 1e-9)
    assert np.all((ratio[whole] >= 1 / stretch - 1e-9) & (ratio[whole] <= stretch + 1e-9))
    for centre, half in ((x, half_width), (y, half_height)):
        tile = np.floor((centre + 1) / 2 * tiles)
        assert np.all(centre - half >= tile * 2 / tiles - 1 - 1e-9)
        assert np.all(centre + half <= (tile + 1) * 2 / tiles - 1 + 1e-9)


# --- CutMix -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 10])
def test_mixing_weights_are_the_shares_of_the_pixels(size: int) -> None:
    count = 40
    levels = torch.arange(count) * 6
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()
    views = Views(ViewConfig(cutmix=0.8), 2, count)
    shown, found = views.render(images, 0, np.arange(count))
    weights = found.mixing_weight(size)
    assert weights.dtype == torch.float32
    colours = (shown * 255.0).round().to(torch.int64)
    seen = set()
    for sample, partner in enumerate(found.partners.tolist()):
        own, other = int(levels[sample]), int(levels[partner])
        pixels = colours[sample, 0].flatten().tolist()
        assert set(pixels) <= {own, other}
        assert torch.equal(colours[sample, 0], colours[sample, 2])
        if partner != sample:
            share = pixels.count(own) / size**2
            assert float(weights[sample]) == pytest.approx(share, abs=1e-7)
            seen.add(share)
    assert len(seen) > 5


def test_patches_are_squares_inside_the_view_with_uniform_area() -> None:
    found = Views(ViewConfig(cutmix=0.5), 0, 4000).parameters(0, np.arange(4000), size=64)
    left, top, right, bottom = found.patches.T
    assert np.all((left >= 0) & (top >= 0) & (right <= 64) & (bottom <= 64))
    assert np.array_equal(right - left, bottom - top)
    pasted = (right - left)[right > left]
    assert len(pasted) / 4000 == pytest.approx(0.5, abs=0.04)
    below = [np.mean((pasted / 64) ** 2 < share) for share in (0.25, 0.5, 0.75)]
    assert below == pytest.approx([0.25, 0.5, 0.75], abs=0.06)


def test_every_sample_is_once_a_partner() -> None:
    views = Views(ViewConfig(cutmix=0.1), 0, 50)
    first = views.parameters(0, np.arange(50), size=8).partners
    second = views.parameters(1, np.arange(50), size=8).partners
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


# --- mosaics ------------------------------------------------------------------------------------------------


def mosaics(tiles: int, size: int, count: int) -> Tensor:
    """Return images whose tiles have one colour each, all different: 0, 1, 2, ... over all images."""
    colours = torch.arange(count * tiles * tiles, dtype=torch.uint8).view(count, 1, tiles, tiles)
    side = size // tiles
    return colours.repeat_interleave(side, 2).repeat_interleave(side, 3)


@pytest.mark.parametrize("tiles", [2, 3])
def test_a_view_of_a_mosaic_shows_one_tile(tiles: int) -> None:
    count, size = 20, 12
    images = mosaics(tiles, size, count)
    views = Views(ViewConfig(cutmix=0.0), 0, count, tiles)
    shown = set()
    for epoch in range(12):
        rendered, _ = views.render(images, epoch, np.arange(count))
        flat = (rendered * 255.0).flatten(1)
        assert torch.allclose(flat, flat[:, :1].expand_as(flat), atol=1e-4)
        colours = flat[:, 0].round().to(torch.int64)
        assert torch.equal(colours // tiles**2, torch.arange(count))
        shown |= set(colours.tolist())
    assert {colour % tiles**2 for colour in shown} == set(range(tiles**2))


def test_a_patch_pasted_into_a_mosaic_is_of_one_tile() -> None:
    images = mosaics(2, 12, 20)
    rendered, found = Views(ViewConfig(cutmix=1.0), 0, 20, 2).render(images, 0, np.arange(20))
    for sample, (left, top, right, bottom) in enumerate(found.patches.tolist()):
        patch = rendered[sample, 0, top:bottom, left:right] * 255.0
        if patch.numel():
            assert float(patch.max() - patch.min()) < 1e-3
            assert round(float(patch[0, 0])) // 4 == found.partners[sample]


def test_mosaics_can_be_kept_closed() -> None:
    images = mosaics(2, 12, 20)
    closed = Views(
        ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), cutmix=0.0, open_tiles=False), 0, 20, 2
    )
    rendered, _ = closed.render(images, 0, np.arange(20))
    assert min(len(view.unique()) for view in (rendered * 255.0).round()) == 4


def test_refuses_tiles_that_do_not_divide_the_image() -> None:
    with pytest.raises(DataError, match="multiple of 3 tiles; got 8 pixels"):
        Views(ViewConfig(), 0, POPULATION, 3).render(noise(1, 8), 0, np.arange(2))
