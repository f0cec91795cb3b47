"""What an image processor asks for is read from its config, done as Pillow does it, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aerogel.condense.families.preparation import (
    LARGEST_SIDE,
    Preparation,
    prepare,
    read_preparation,
    understand_processor,
)
from aerogel.errors import DataError

STEPS: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 8, "width": 8},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5],
    "image_std": [0.5],
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"resample": 1}, "resample=1"),
        ({"do_pad": True}, "do_pad"),
        ({"do_pad": True, "do_flip_channel_order": True}, "do_pad, do_flip_channel_order"),
        ({"size": {"longest_edge": 9}}, "longest_edge"),
        ({"do_center_crop": True, "crop_size": None}, "crop_size"),
    ],
)
def test_a_step_that_is_not_reproduced_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_preparation(STEPS | change, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"height": LARGEST_SIDE + 1, "width": 8}},
        {"size": {"height": "a", "width": "b"}},
        {"size": 5},
        {"crop_size": {"height": -8, "width": -8}, "do_center_crop": True},
        {"image_mean": "abc"},
        {"image_mean": [0.5] * 4},
        {"image_std": [0.0]},
        {"rescale_factor": float("inf")},
        {"resample": "x"},
        {"resample": 1},
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_the_model(change: dict[str, Any]) -> None:
    assert understand_processor("here", STEPS, 1) == read_preparation(STEPS, 1)
    with pytest.raises(DataError, match="'here'"):
        understand_processor("here", STEPS | change, 1)


def test_steps_that_are_off_are_left_out() -> None:
    off = {"do_resize": False, "do_rescale": False, "do_normalize": False, "resample": 1}
    assert read_preparation(STEPS | off, 1) == Preparation(None, None, "bilinear", 255.0, (0.0,), (1.0,))


def test_what_efficientnet_adds_is_in_mean_and_deviation() -> None:
    odd = {"rescale_offset": True, "include_top": True, "rescale_factor": 1 / 127.5, "image_std": [0.25]}
    found = read_preparation(STEPS | odd, 1)
    image = torch.full((1, 1, 8, 8), 0.8)
    ours = prepare(
        image, found, torch.tensor(found.mean).view(-1, 1, 1), torch.tensor(found.std).view(-1, 1, 1)
    )
    assert torch.allclose(ours, ((image * 2.0 - 1.0) - 0.5) / 0.25 / 0.25)
    bare = read_preparation(STEPS | odd | {"do_normalize": False, "do_rescale": False}, 1)
    assert (bare.mean, bare.std) == ((0.0,), (0.25,))


@pytest.mark.parametrize(("name", "filter"), [("nearest", 0), ("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("size", [5, 9, 31])
def test_images_are_resized_as_pillow_does(name: str, filter: int, size: int) -> None:
    line = torch.linspace(0, 3, 17)
    picture = ((torch.sin(line[:, None] * 2 - line[None, :]) + 1.0) * 127.0).round().to(torch.uint8)
    theirs = Image.fromarray(picture.numpy()).resize((size, size), Image.Resampling(filter))
    wanted = Preparation((size, size), None, name, 255.0, (0.0,), (1.0,))
    ours = prepare(picture[None, None] / 255.0, wanted, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    assert float((ours[0, 0] - torch.from_numpy(np.array(theirs)).float()).abs().max()) <= 1.01


def test_a_preparation_survives_json() -> None:
    for wanted in (
        Preparation((8, 9), None, "bicubic", 1.0, (0.5,), (0.2,)),
        Preparation(None, (4, 4), "nearest", 255.0, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)),
    ):
        assert Preparation.from_dict(wanted.to_dict()) == wanted
