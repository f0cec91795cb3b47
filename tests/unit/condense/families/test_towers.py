"""A tower reads the whole image, where its network has such a thing, and the cells of its maps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.condense.families.preparation import Preparation
from aerogel.condense.families.towers import MapTower, TokenTower, Tower, fold_tokens

AS_IT_IS = Preparation(None, None, "bicubic", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Pixels(nn.Module):
    """Give the pixels back: as maps, or as tokens after ``prefix`` others."""

    def __init__(self, prefix: int | None = None, pooled: bool = False) -> None:
        super().__init__()
        self.prefix = prefix
        self.pooled = pooled
        self.twice = nn.LayerNorm(3)

    def forward(self, pixel_values: Tensor) -> Any:
        if self.prefix is None:
            return SimpleNamespace(last_hidden_state=pixel_values)
        tokens = pixel_values.flatten(2).transpose(1, 2)
        first = torch.arange(float(self.prefix)).view(1, -1, 1).expand(len(tokens), -1, 3) + 5.0
        whole = torch.full((len(tokens), 3), 9.0) if self.pooled else None
        return SimpleNamespace(last_hidden_state=torch.cat([first, tokens], 1), pooler_output=whole)


def images(size: int = 4) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def quarters(shown: Tensor) -> Tensor:
    half = shown.shape[-1] // 2
    cells = [
        shown[:, :, top : top + half, left : left + half].mean((2, 3))
        for top in (0, half)
        for left in (0, half)
    ]
    return torch.stack(cells, 2).flatten(1)


def test_maps_give_the_means_of_their_cells() -> None:
    shown = images()
    assert torch.allclose(MapTower(Pixels(), AS_IT_IS, 1)(shown), shown.mean((2, 3)))
    assert torch.allclose(MapTower(Pixels(), AS_IT_IS, 2)(shown), quarters(shown))


def test_a_norm_is_applied_to_each_mean() -> None:
    found = MapTower(Pixels(), AS_IT_IS, 2, "twice")(images()).unflatten(1, (3, 4))
    assert torch.allclose(found.mean(1), torch.zeros(2, 4), atol=1e-5)


@pytest.mark.parametrize(("pooled", "value"), [(False, 5.0), (True, 9.0)])
def test_the_class_token_comes_first_and_other_tokens_of_no_place_are_left_out(
    pooled: bool, value: float
) -> None:
    shown = images()
    one = TokenTower(Pixels(3, pooled), AS_IT_IS, 1, 3)(shown)
    assert torch.equal(one, torch.full((2, 3), value))
    two = TokenTower(Pixels(3, pooled), AS_IT_IS, 2, 3)(shown)
    assert torch.equal(two[:, :3], one)
    assert torch.allclose(two[:, 3:], quarters(shown))


def test_without_a_class_token_there_are_cells_alone() -> None:
    shown = images()
    assert torch.allclose(TokenTower(Pixels(0, True), AS_IT_IS, 1, 0)(shown), shown.mean((2, 3)))
    assert torch.allclose(TokenTower(Pixels(0), AS_IT_IS, 2, 0)(shown), quarters(shown))


def test_images_are_prepared_and_grey_serves_as_colour() -> None:
    wanted = Preparation((4, 4), None, "bilinear", 255.0, (127.0,) * 3, (2.0,) * 3)
    tower = MapTower(Pixels(), wanted, 1)
    assert torch.allclose(tower(torch.full((1, 1, 9, 9), 0.6)), torch.full((1, 3), 13.0), atol=1e-4)
    assert set(tower.state_dict()) >= {"mean", "std"}


def test_tokens_are_laid_out_row_by_row() -> None:
    maps = fold_tokens(torch.arange(9.0).view(1, 9, 1))
    assert torch.equal(maps[0, 0], torch.arange(9.0).view(3, 3))


def test_a_tower_is_not_made_without_a_network() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Tower(AS_IT_IS, 1)  # type: ignore[abstract]
