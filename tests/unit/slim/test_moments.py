"""Moments are those of what layers are really given; hooks leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aerogel.errors import DataError
from aerogel.slim import observe
from aerogel.slim.families.family import find_family
from aerogel.slim.moments import MomentSums, list_norms, watch_heads, watch_stream
from tests.unit.slim.tiny import SIDE, build, pixels


def locate(model: Any) -> Any:
    return find_family(model).locate(model)


def one_by_one() -> list[Tensor]:
    return list(pixels(count=3).split(1))


def hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@torch.no_grad()
def test_the_stream_is_normalised_where_it_is_read() -> None:
    model = build()
    found = watch_stream(locate(model), one_by_one())
    assert found.shape == (7, 24, 24) and found.dtype == torch.float64
    # Each token has mean 0 and mean square 1.
    assert torch.allclose(found.diagonal(dim1=1, dim2=2).sum(1), torch.tensor(24.0).double())
    assert float(found.sum(2).abs().max()) < 1e-9
    with observe(model, bottlenecks=False) as seen:
        stream = list(seen.encode(pixels(count=3)).residuals)
    for place, states in ((1, stream[1]), (4, stream[4]), (6, stream[6])):
        plain = torch.nn.functional.layer_norm(states, (24,), eps=0.0).flatten(0, 2)
        assert torch.allclose(found[place], plain.T @ plain / len(plain), atol=1e-9), place
    assert hooks(model) == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_moments_of_heads(attention: str) -> None:
    model = build(attention=attention)
    sites = locate(model)
    # The second block sees the whole image, so that no window is padded.
    layer: Any = sites.blocks[1].layer
    with observe(model, bottlenecks=False) as seen:
        states = list(seen.encode(pixels(count=3)).residuals)[2]
    made = layer.attn.qkv(layer.layer_norm1(states)).flatten(1, 2).unflatten(-1, (3, 4, 6))
    found = watch_heads(sites, one_by_one())[1]
    assert found.queries.shape == found.keys.shape == found.mixed.shape == (4, 6, 6)
    queries = made[:, :, 0, 2].flatten(0, 1)
    assert torch.allclose(found.queries[2], queries.T @ queries / len(queries), atol=1e-9)
    keys = made[:, :, 1, 3] - made[:, :, 1, 3].mean(1, keepdim=True)
    keys = keys.flatten(0, 1)
    assert torch.allclose(found.keys[3], keys.T @ keys / len(keys), atol=1e-9)
    mixed = sites.blocks[1].mix(states).flatten(0, 2).unflatten(-1, (4, 6))[:, 0]
    assert torch.allclose(found.mixed[0], mixed.T @ mixed / len(mixed), atol=1e-9)
    assert hooks(model) == 0


def test_sums_are_of_float64_whatever_they_add() -> None:
    sums = MomentSums(torch.float32)
    for _ in range(2):
        sums.add("x", torch.ones(5, 2, dtype=torch.bfloat16))
    assert torch.equal(sums.found["x"], torch.full((2, 2), 2.0).double())


def test_norms_come_with_their_readers() -> None:
    model = build()
    pairs = list_norms(locate(model).blocks)
    assert len(pairs) == 6
    assert pairs[2] == (model.vision_encoder.layers[1].layer_norm1, model.vision_encoder.layers[1].attn.qkv)
    assert pairs[3] == (model.vision_encoder.layers[1].layer_norm2, model.vision_encoder.layers[1].mlp.lin1)


@pytest.mark.parametrize("watch", [watch_stream, watch_heads])
def test_mistakes_are_told_and_hooks_go(watch: Any) -> None:
    model = build()
    with pytest.raises(DataError, match="at least one image"):
        watch(locate(model), iter(()))
    with pytest.raises(ValueError, match="size"):
        watch(locate(model), [torch.zeros(1, 3, SIDE // 2, SIDE, dtype=torch.float64)])
    assert hooks(model) == 0
