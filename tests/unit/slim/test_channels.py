"""A description names every axis of an encoder once, and fits or is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aerogel.errors import MismatchError
from aerogel.slim.channels import Axis, Channels, Group, check_channels, kind_of, name_group
from aerogel.slim.families import describe
from tests.unit.slim.tiny import build

SHAPES = {"a.weight": (6, 4), "a.bias": (6,), "outside": (3, 6)}
CHANNELS = Channels(
    "toy",
    "a.",
    (
        Group("embedding", 4, (Axis("a.weight", 1),)),
        Group("blocks.0.heads", 2, (Axis("a.weight", 0, block=3), Axis("a.bias", 0, block=3))),
        Group("blocks.0.head_dims", 3, (Axis("a.weight", 0, repeats=2), Axis("a.bias", 0, repeats=2))),
    ),
    frozenset(),
)


def test_positions_of_a_channel() -> None:
    group = Group("blocks.0.head_dims", 4, ())
    dims = Axis("qkv", 0, offset=24, repeats=2)
    assert group.locate(dims, [3, 1]).tolist() == [25, 27, 29, 31]
    heads = Axis("qkv", 0, offset=8, block=3)
    assert group.locate(heads, [0, 2]).tolist() == [8, 9, 10, 14, 15, 16]
    assert group.locate(heads, []).tolist() == []


def test_heads_and_dimensions_cross() -> None:
    model = build()
    channels = describe(model)
    rows = torch.arange(72).reshape(3, 4, 6)
    heads, dims = channels.of_kind("heads")[0], channels.of_kind("head_dims")[0]
    keys = next(axis for axis in dims.axes if axis.role == "key")
    assert dims.locate(keys, [2]).tolist() == rows[1, :, 2].tolist()
    keys = next(axis for axis in heads.axes if axis.role == "key")
    assert heads.locate(keys, [2]).tolist() == rows[1, 2].tolist()


def test_names_say_block_and_kind() -> None:
    assert name_group("mlp", 3) == "blocks.3.mlp" and name_group("embedding") == "embedding"
    assert kind_of("blocks.3.head_dims") == "head_dims"
    with pytest.raises(MismatchError, match=r"'blocks\.3\.neck'"):
        kind_of("blocks.3.neck")


def test_a_fitting_description_passes() -> None:
    check_channels(CHANNELS, SHAPES)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({**SHAPES, "a.adapter": (2,)}, "axis 0 of a.adapter is in no group"),
        ({**SHAPES, "a.weight": (6, 5)}, "do not cover axis 1 of a.weight"),
        ({**SHAPES, "a.weight": (6, 3)}, "embedding ends at 4"),
        ({**SHAPES, "a.weight": (7, 4)}, "do not cover axis 0 of a.weight"),
        ({"a.weight": (6, 4)}, "a.bias has no axis 0"),
    ],
)
def test_what_does_not_fit_is_named(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        check_channels(CHANNELS, shapes)


def test_an_axis_is_in_groups_or_fixed() -> None:
    with pytest.raises(MismatchError, match=r"axis 1 of a\.weight is fixed and in a group"):
        check_channels(replace(CHANNELS, fixed=frozenset({("a.weight", 1)})), SHAPES)
    with pytest.raises(MismatchError, match="outside has no axis 2"):
        check_channels(replace(CHANNELS, fixed=frozenset({("outside", 2)})), SHAPES)
    without_dims = replace(CHANNELS, groups=CHANNELS.groups[:2])
    with pytest.raises(MismatchError, match=r"do not cover axis 0 of a\.bias"):
        check_channels(without_dims, SHAPES)


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_every_width_of_an_encoder_is_covered(family: str) -> None:
    """Wherever the embedding's width, 29, stands in a shape, the embedding group has that axis."""
    model = build(family, hidden_size=29, num_attention_heads=1, mlp_dim=31)
    channels = describe(model)
    for size, kind in ((29, "embedding"), (31, "mlp")):
        stated = {
            (axis.parameter, axis.dim)
            for group in channels.groups
            if group.kind == kind
            for axis in group.axes
        }
        found = {
            (name, dim)
            for name, parameter in model.named_parameters()
            for dim, length in enumerate(parameter.shape)
            if length == size
        }
        heads = {(axis.parameter, axis.dim) for group in channels.of_kind("heads") for axis in group.axes}
        heads |= {
            (axis.parameter, axis.dim) for group in channels.of_kind("head_dims") for axis in group.axes
        }
        assert stated == found - heads


def test_added_parts_of_an_encoder_are_refused() -> None:
    model = build()
    model.vision_encoder.layers[0].attn.adapter = nn.Linear(24, 2)
    with pytest.raises(MismatchError, match=r"layers\.0\.attn\.adapter\.weight is in no group"):
        describe(model)


def test_a_description_counts() -> None:
    channels = describe(build())
    assert channels.blocks == 3
    assert channels.sizes["embedding"] == 24 and channels.sizes["blocks.2.head_dims"] == 6
    assert len(channels.of_kind("mlp")) == 3
    assert np.array([group.size for group in channels.groups]).sum() == 24 + 3 * (4 + 6 + 40)
