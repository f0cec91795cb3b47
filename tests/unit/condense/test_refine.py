"""The image update brings shrunk patches closer, in features, to what they were cut from."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from aerogel.condense.config import RefineConfig, SelectionConfig
from aerogel.condense.refine import (
    find_originals,
    gather_images,
    join_mosaics,
    load_refined,
    measure_gap,
    refine_images,
    require_mosaics,
    save_refined,
    split_mosaics,
)
from aerogel.condense.selection import Patch, Selection, select_images
from aerogel.condense.views import crop
from aerogel.errors import ConfigError, DataError, IntegrityError
from aerogel.zoo.imageset import ImageSet
from tests.unit.condense import tiny

DATA = tiny.draw(8, channels=3, size=16)
BACKBONE = tiny.stripes().module
CONFIG = RefineConfig(steps=20, lr=0.01)


class Sure(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def selected(data: ImageSet = DATA, ipc: int = 2) -> Selection:
    config = SelectionConfig(tiles=2, crops=2, order="confident")
    return select_images(data, Sure(), config, ipc=ipc, seed=0, device="cpu")


def refined(
    selection: Selection, folder: Path, config: RefineConfig = CONFIG
) -> tuple[Selection, float, float]:
    list(refine_images(DATA, selection, BACKBONE, config, device="cpu", checkpoint=folder))
    return gather_images(selection, folder)


def test_mosaics_are_taken_apart_and_joined() -> None:
    images = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    patches = split_mosaics(images, 2)
    assert torch.equal(patches[1], images[0, :, :8, 8:])
    assert torch.equal(patches[6], images[1, :, 8:, :8])
    assert torch.equal(join_mosaics(patches, 2), images)


def test_originals_are_what_the_patches_were_cut_from() -> None:
    selection = selected()
    indices, boxes = find_originals(DATA, selection)
    whole = crop(DATA.images[indices], boxes, 16)
    small = functional.interpolate(whole, size=8, mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal((small * 255).round().to(torch.uint8), split_mosaics(selection.images, 2))
    lost = replace(selection, patches=((Patch("elsewhere", (0.0, 0.0, 1.0, 1.0), 0.0),),))
    with pytest.raises(DataError, match="such as elsewhere"):
        find_originals(DATA, lost)


def test_the_gap_falls_for_every_patch_and_nothing_else_changes(tmp_path: Path) -> None:
    selection = selected()
    found, before, after = refined(selection, tmp_path)
    assert after < 0.5 * before
    indices, boxes = find_originals(DATA, selection)
    wanted = BACKBONE(crop(DATA.images[indices], boxes, 16))

    def gaps(images: torch.Tensor) -> torch.Tensor:
        return measure_gap(BACKBONE, split_mosaics(images, 2).float() / 255.0, wanted, 16)

    first, last = gaps(selection.images), gaps(found.images)
    assert bool((last <= first).all())
    assert float(first.mean()) == pytest.approx(before, rel=1e-4)
    assert float(last.mean()) == pytest.approx(after, rel=1e-4)
    assert found.images.dtype == torch.uint8 and found.images.shape == selection.images.shape
    assert torch.equal(found.labels, selection.labels) and found.patches == selection.patches


def test_a_patch_that_comes_no_closer_stays(tmp_path: Path) -> None:
    selection = selected()
    found, before, after = refined(selection, tmp_path, RefineConfig(steps=1, lr=1e-9))
    assert torch.equal(found.images, selection.images) and before == after


def test_a_stopped_update_goes_on_to_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = selected()
    whole, _, _ = refined(selection, tmp_path / "whole")
    monkeypatch.setattr("aerogel.condense.refine._AT_ONCE", 5)
    straight, _, _ = refined(selection, tmp_path / "straight")
    moved = (straight.images.int() - whole.images.int()).abs()
    assert int(moved.max()) <= 1, "a patch does not depend on those beside it"
    cut = refine_images(DATA, selection, BACKBONE, CONFIG, device="cpu", checkpoint=tmp_path / "cut")
    assert [state.group for state in islice(cut, 2)] == [0, 1]
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()}
    assert len(done) == 2
    again, _, _ = refined(selection, tmp_path / "cut")
    assert torch.equal(again.images, straight.images)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").iterdir()}
    assert len(after) == 5 and done.items() <= after.items()


def test_images_that_were_not_shrunk_are_refused() -> None:
    require_mosaics(SelectionConfig(tiles=2), 16)
    require_mosaics(SelectionConfig(), 96)
    with pytest.raises(ConfigError, match="nothing was lost"):
        require_mosaics(SelectionConfig(), 32)


def test_updated_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    selection = selected()
    moved = replace(selection, images=255 - selection.images)
    save_refined(moved, tmp_path)
    assert torch.equal(load_refined(tmp_path, selection).images, moved.images)
    for images in (moved.images[:1], moved.images.float()):
        save_file({"images": images}, tmp_path / "images.safetensors")
        with pytest.raises(IntegrityError, match="updated images"):
            load_refined(tmp_path, selection)


def test_groups_that_are_damaged_or_too_few_are_refused(tmp_path: Path) -> None:
    selection = selected()
    refined(selection, tmp_path)
    path = tmp_path / "group-00000.safetensors"
    whole = load_file(path)
    for change in ({"patches": whole["patches"].float()}, {"gaps": whole["gaps"][:1]}):
        save_file({**whole, **change}, path)
        with pytest.raises(IntegrityError, match="group"):
            gather_images(selection, tmp_path)
    path.unlink()
    with pytest.raises(IntegrityError, match="updated patches"):
        gather_images(selection, tmp_path)
