"""The hash of a backbone tells weights apart, and its grid suits the images."""

from __future__ import annotations

import torch
from torch import nn

from aerogel.condense.families.backbone import choose_grid, hash_weights


def test_the_hash_sees_every_change_of_the_weights() -> None:
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    assert hash_weights(one) == hash_weights(two)
    changed = nn.Linear(3, 2)
    changed.load_state_dict(one.state_dict())
    with torch.no_grad():
        changed.bias[1] = torch.nextafter(changed.bias[1], torch.tensor(9.0))
    reshaped = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        reshaped.weight.copy_(one.weight.reshape(3, 2))
    others = [changed, reshaped, nn.Linear(3, 2).double(), nn.Sequential(one), nn.BatchNorm2d(2)]
    assert len({hash_weights(module) for module in [one, *others]}) == 6


def test_a_grid_suits_images_that_have_places() -> None:
    assert [choose_grid(size) for size in (0, 15, 16, 224)] == [1, 1, 2, 2]
