"""Recomputing blocks gives the same gradients, and leaves nothing behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from aerogel.slim.families.family import find_family
from tests.unit.slim.tiny import build, pixels


def gradients(model: Any, enabled: bool) -> dict[str, torch.Tensor]:
    sites = find_family(model).locate(model)
    model.zero_grad()
    with sites.recomputing(enabled):
        sites.encoder(pixels()).last_hidden_state.square().sum().backward()
    return {name: each.grad.clone() for name, each in sites.encoder.named_parameters()}


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_recomputed_blocks_give_the_same_gradients(family: str) -> None:
    model = build(family)
    plain, again = gradients(model, False), gradients(model, True)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_blocks_are_computed_twice_and_then_as_before() -> None:
    model = build()
    layer, calls = model.vision_encoder.layers[1], []
    layer.attn.register_forward_hook(lambda *args: calls.append(1))
    before = copy.copy(vars(layer))
    gradients(model, True)
    assert len(calls) == 2
    assert vars(layer) == before and not layer.training and not layer.gradient_checkpointing
    gradients(model, False)
    assert len(calls) == 3


def test_sites_say_what_blocks_see() -> None:
    model = build("sam_hq")
    sites = find_family(model).locate(model)
    assert [block.window for block in sites.blocks] == [3, 0, 3]
    assert [block.heads for block in sites.blocks] == [4, 4, 4]
    assert sites.patch_px == 16 and sites.decoder is model.mask_decoder
    bare = find_family(model.vision_encoder).locate(model.vision_encoder)
    assert bare.encoder is model.vision_encoder and bare.decoder is None


def test_details_are_what_the_decoder_makes_of_the_first_global_block() -> None:
    model = build("sam_hq")
    seen: list[torch.Tensor] = []
    model.mask_decoder.compress_vit_conv2.register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    points = torch.tensor([[[[20.0, 30.0]]]] * 2, dtype=torch.float64)
    with torch.no_grad():
        intermediate = model.vision_encoder(pixels()).intermediate_embeddings
        found = find_family(model).locate(model).read_details(intermediate)
        model(pixels(), input_points=points)
    assert found is not None
    assert torch.equal(found, seen[1]) and found.shape == (2, 4, 16, 16)
    assert find_family(model).locate(model).read_details([]) is None
