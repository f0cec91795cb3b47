"""The chosen images are the ones that a search of all crops, one by one, would choose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense import selection as selection_module
from aerogel.condense.config import SelectionConfig
from aerogel.condense.selection import (
    Patch,
    Selection,
    load_selection,
    save_selection,
    select_images,
    tiles_per_side,
)
from aerogel.condense.views import crop
from aerogel.core.crew import Crew
from aerogel.core.randomness import seed_torch, uniforms
from aerogel.errors import DataError, IntegrityError
from aerogel.zoo.imageset import ImageSet

NAMES = ("ant", "bee", "cow")
SIZE = 16
CONFIG = SelectionConfig(candidates=0, crops=3, crop_scale=(0.3, 0.9), tiles=1, order="confident")


def make_data(per_class: int = 12, size: int = SIZE, channels: int = 3) -> ImageSet:
    count = per_class * len(NAMES)
    pixels = np.random.default_rng(1).integers(0, 256, (count, channels, size, size)).astype(np.uint8)
    labels = torch.arange(count) % len(NAMES)
    ids = tuple(f"train:{index}" for index in range(count))
    return ImageSet(torch.from_numpy(pixels), labels, NAMES, ids, "noise", "none")


def make_teacher(size: int = SIZE, channels: int = 3) -> nn.Module:
    with seed_torch(3):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels * size * size, len(NAMES)))


def choose(
    config: SelectionConfig = CONFIG, ipc: int = 2, seed: int = 0, data: ImageSet | None = None
) -> Selection:
    return select_images(data or make_data(), make_teacher(), config, ipc=ipc, seed=seed, device="cpu")


def cross_entropy(teacher: nn.Module, view: Tensor, label: int) -> float:
    with torch.no_grad():
        return float(functional.cross_entropy(teacher(view[None]), torch.tensor([label])))


def picture_of(data: ImageSet, patch: Patch) -> Tensor:
    index = data.ids.index(patch.source)
    return crop(data.images[index : index + 1], np.array([patch.box]), data.shape[1])[0]


def same(first: Selection, second: Selection) -> bool:
    return torch.equal(first.images, second.images) and first.patches == second.patches


# --- what is chosen -----------------------------------------------------------------------------------------


def search_by_hand(
    data: ImageSet, label: int, wanted: int, seed: int
) -> list[tuple[str, list[float], float]]:
    """Score every crop alone; keep the surest of each image and the surest images: (id, box, loss)."""
    teacher = make_teacher().eval()
    per_image = []
    for index in range(len(data)):
        if int(data.labels[index]) != label:
            continue
        draws = uniforms(seed, "select", 0, np.array([index]), 3 * CONFIG.crops)[0]
        found = []
        for number in range(CONFIG.crops):
            area, x, y = draws[3 * number : 3 * number + 3]
            half = (CONFIG.crop_scale[0] + (CONFIG.crop_scale[1] - CONFIG.crop_scale[0]) * area) ** 0.5
            box = [(2 * x - 1) * (1 - half), (2 * y - 1) * (1 - half), half, half]
            view = crop(data.images[index : index + 1], np.array([box]), SIZE)[0]
            found.append((data.ids[index], box, cross_entropy(teacher, view, label)))
        per_image.append(min(found, key=lambda each: each[2]))
    return sorted(per_image, key=lambda each: each[2])[:wanted]


@pytest.mark.parametrize("seed", [0, 1])
def test_selection_is_the_search_of_every_crop(seed: int) -> None:
    data = make_data()
    chosen = choose(ipc=4, seed=seed, data=data)
    assert chosen.labels.tolist() == [label for label in range(3) for _ in range(4)]
    assert chosen.images.shape == (12, 3, SIZE, SIZE)
    assert chosen.images.dtype == torch.uint8
    for label in range(3):
        expected = search_by_hand(data, label, 4, seed)
        found = [patch for row in chosen.patches[4 * label : 4 * label + 4] for patch in row]
        assert [patch.source for patch in found] == [each[0] for each in expected]
        for patch, (_, box, loss) in zip(found, expected, strict=True):
            assert patch.box == pytest.approx(box, abs=1e-12)
            assert patch.loss == pytest.approx(loss, rel=1e-5)
    for image, (patch,) in zip(chosen.images, chosen.patches, strict=True):
        assert torch.equal(image, (picture_of(data, patch) * 255.0).round().to(torch.uint8))


def test_crops_have_the_area_and_place_asked_for() -> None:
    boxes = np.array([patch.box for row in choose(ipc=12).patches for patch in row])
    assert np.array_equal(boxes[:, 2], boxes[:, 3])
    assert np.all((boxes[:, 2] ** 2 >= 0.3) & (boxes[:, 2] ** 2 <= 0.9))
    assert np.all(np.abs(boxes[:, :2]) + boxes[:, 2:] <= 1 + 1e-9)


@pytest.mark.parametrize("tiles", [1, 2])
def test_tiles_lie_in_the_order_of_their_patches(tiles: int) -> None:
    data, ipc = make_data(), 3
    chosen = choose(replace(CONFIG, tiles=tiles), ipc=ipc, data=data)
    side = SIZE // tiles
    assert chosen.tiles == tiles
    for image, row in zip(chosen.images, chosen.patches, strict=True):
        assert len(row) == tiles * tiles
        for number, patch in enumerate(row):
            top, left = number // tiles * side, number % tiles * side
            view = picture_of(data, patch)[None]
            small = functional.interpolate(view, size=side, mode="bilinear", antialias=True)
            expected = ((small if tiles > 1 else view)[0] * 255.0).round().to(torch.uint8)
            assert torch.equal(image[:, top : top + side, left : left + side], expected)
    for label in range(3):
        rows = chosen.patches[ipc * label : ipc * label + ipc]
        by_rank = [rows[image][number].loss for number in range(tiles * tiles) for image in range(ipc)]
        assert by_rank == sorted(by_rank)
        assert len({patch.source for row in rows for patch in row}) == ipc * tiles * tiles


def test_patches_name_images_of_their_class() -> None:
    data = make_data()
    chosen = choose(data=data)
    for label, row in zip(chosen.labels.tolist(), chosen.patches, strict=True):
        for patch in row:
            assert int(data.labels[data.ids.index(patch.source)]) == label
            described = patch.to_dict()
            assert described == {"source": patch.source, "box": list(patch.box), "loss": patch.loss}


# --- what it depends on -------------------------------------------------------------------------------------


def test_selection_is_repeatable_and_follows_its_seed() -> None:
    torch.manual_seed(5)
    first = choose(seed=4)
    assert same(first, choose(seed=4))
    assert not same(first, choose(seed=5))


def test_other_classes_do_not_matter() -> None:
    data = make_data()
    first = choose(ipc=3, data=data)
    noise = torch.from_numpy(np.random.default_rng(9).integers(0, 256, data.images.shape).astype(np.uint8))
    keep = (data.labels == 1).view(-1, 1, 1, 1)
    second = choose(ipc=3, data=replace(data, images=torch.where(keep, data.images, noise)))
    assert torch.equal(first.images[3:6], second.images[3:6])
    assert first.patches[3:6] == second.patches[3:6]
    assert not torch.equal(first.images[:3], second.images[:3])


def test_batch_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    teacher = make_teacher()
    teacher.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    many = select_images(make_data(), teacher, CONFIG, ipc=4, seed=0, device="cpu")
    assert max(sizes) == 36
    sizes.clear()
    monkeypatch.setattr(selection_module, "_SCORED_AT_ONCE", 7)
    few = select_images(make_data(), teacher, CONFIG, ipc=4, seed=0, device="cpu")
    assert max(sizes) == 6
    assert torch.equal(many.images, few.images)
    losses = [[patch.loss for row in each.patches for patch in row] for each in (many, few)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_candidates_limit_the_search() -> None:
    all_of_them = {patch.source for row in choose(ipc=12).patches for patch in row}
    assert len(all_of_them) == 36
    limited = replace(CONFIG, candidates=4)
    drawn = {patch.source for row in choose(limited, ipc=4).patches for patch in row}
    assert len(drawn) == 12
    chosen = {patch.source for row in choose(limited, ipc=2).patches for patch in row}
    assert chosen < drawn
    other = {patch.source for row in choose(limited, ipc=4, seed=1).patches for patch in row}
    assert other != drawn


def test_the_teacher_judges_in_evaluation_mode() -> None:
    teacher = make_teacher().train()
    first = select_images(make_data(), teacher, CONFIG, ipc=2, seed=0, device="cpu")
    assert not teacher.training
    assert same(first, choose())


def test_random_order_takes_whole_images_by_chance() -> None:
    data = make_data()
    config = replace(CONFIG, order="random")
    chosen = choose(config, ipc=5, data=data)
    teacher = make_teacher().eval()
    for image, label, (patch,) in zip(chosen.images, chosen.labels.tolist(), chosen.patches, strict=True):
        original = data.images[data.ids.index(patch.source)]
        assert torch.equal(image, original)
        assert patch.box == (0.0, 0.0, 1.0, 1.0)
        assert patch.loss == pytest.approx(cross_entropy(teacher, original / 255.0, label), rel=1e-4)
    sources = [patch.source for row in chosen.patches for patch in row]
    assert len(set(sources)) == 15
    losses = [row[0].loss for row in chosen.patches[:5]]
    assert losses != sorted(losses)
    assert not same(chosen, choose(config, ipc=5, seed=1, data=data))


class Brightness(nn.Module):
    """Tell images apart by their mean alone, surest of the brightest: logits (5 x mean, 0, 0)."""

    def forward(self, images: Tensor) -> Tensor:
        bright = 5.0 * images.mean((1, 2, 3))
        return torch.stack([bright, torch.zeros_like(bright), torch.zeros_like(bright)], dim=1)


def grey_data(levels: list[int]) -> ImageSet:
    """Give every class one plain image of each grey level, in this order."""
    shown = torch.tensor([level for level in levels for _ in NAMES], dtype=torch.uint8)
    images = shown[:, None, None, None].expand(-1, 1, SIZE, SIZE).clone()
    labels = torch.arange(len(shown)) % len(NAMES)
    return ImageSet(images, labels, NAMES, tuple(f"train:{i}" for i in range(len(shown))), "grey", "none")


def chosen_levels(data: ImageSet, ipc: int, order: str = "representative", seed: int = 0) -> list[int]:
    config = replace(CONFIG, order=order)
    found = select_images(data, Brightness(), config, ipc=ipc, seed=seed, device="cpu")
    return [
        int(image[0, 0, 0]) for image, label in zip(found.images, found.labels, strict=True) if label == 0
    ]


def test_representative_takes_the_surest_of_every_group() -> None:
    data = grey_data([10, 12, 14, 100, 101, 102, 200, 202, 203, 204])
    assert sorted(chosen_levels(data, ipc=3)) == [14, 102, 204]
    assert chosen_levels(data, ipc=3, order="confident") == [204, 203, 202]
    assert chosen_levels(data, ipc=3) == chosen_levels(data, ipc=3)


def test_representative_fills_up_with_the_surest_where_images_repeat() -> None:
    data = grey_data([50, 50, 50, 90, 90, 90])
    assert sorted(chosen_levels(data, ipc=4)) == [50, 90, 90, 90]


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "ipc", "wanted"),
    [
        (CONFIG, 13, r"at least 13 candidate images .*ipc 13 x 1 patches\); got 'ant' has 12; 'bee' has 12"),
        (replace(CONFIG, tiles=2), 4, r"at least 16 candidate images .*ipc 4 x 4 patches\)"),
        (replace(CONFIG, candidates=3), 4, r"candidates=3; what to do: lower ipc or tiles, raise candidates"),
    ],
)
def test_too_few_images_are_refused_before_any_work(config: SelectionConfig, ipc: int, wanted: str) -> None:
    class Untouched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("a view was scored")

    with pytest.raises(DataError, match=wanted):
        select_images(make_data(), Untouched(), config, ipc=ipc, seed=0, device="cpu")


def test_one_short_class_is_named() -> None:
    data = make_data()
    with pytest.raises(DataError, match="got 'cow' has 11; candidates=0"):
        choose(ipc=12, data=data.subset(range(35)))


@pytest.mark.parametrize(("size", "tiles"), [(28, 1), (95, 1), (96, 2), (97, 1), (224, 2)])
def test_automatic_tiles_follow_the_size(size: int, tiles: int) -> None:
    assert tiles_per_side(SelectionConfig(), size) == tiles


@pytest.mark.parametrize(("size", "tiles"), [(16, 3), (16, 4), (8, 2)])
def test_refuses_tiles_that_are_uneven_or_tiny(size: int, tiles: int) -> None:
    with pytest.raises(DataError, match=f"divide {size} pixels into patches of 8 or more; got tiles={tiles}"):
        tiles_per_side(SelectionConfig(tiles=tiles), size)


class Half(Crew):
    """One of two processes; what the other found is handed over."""

    others: list[Any] = []  # noqa: RUF012 - the two halves of the test share it

    def gather(self, items: Any) -> list[Any]:
        """Return the items of both."""
        self.others.extend(items)
        return list(self.others)


def test_processes_share_the_classes() -> None:
    def choose_as(crew: Crew) -> Selection:
        return select_images(make_data(), make_teacher(), CONFIG, ipc=2, seed=0, device="cpu", crew=crew)

    assert set(choose_as(Half(2, 1)).labels.tolist()) == {1}
    assert same(choose_as(Half(2, 0)), choose())


def test_a_selection_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = choose()
    save_selection(found, tmp_path)
    again = load_selection(tmp_path, found.tiles)
    assert torch.equal(again.images, found.images) and torch.equal(again.labels, found.labels)
    assert again.patches == found.patches
    for text in ("[]", "5", json.dumps([[{"source": "a", "box": [1], "loss": 1}]])):
        (tmp_path / "provenance.json").write_text(text)
        with pytest.raises(IntegrityError, match="selection"):
            load_selection(tmp_path, found.tiles)
