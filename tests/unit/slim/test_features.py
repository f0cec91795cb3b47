"""Features are what passes through the encoder: each once, whatever the class, and nothing stays behind."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import DataError
from aerogel.slim.families.family import find_family
from aerogel.slim.features import Bottleneck, Features, mask_tokens, mask_windows, observe
from aerogel.slim.surgery import apply_plan
from tests.unit.slim.tiny import build, draw_plan, pixels


def flexible(family: str) -> Any:
    model = build(family)
    return apply_plan(model, draw_plan(model, {"blocks.0.mlp": 11, "blocks.1.head_dims": 3}))


MODELS = {
    "SamModel": lambda: build("sam"),
    "SamHQModel": lambda: build("sam_hq"),
    "FlexSamModel": lambda: flexible("sam"),
    "FlexSamHQModel": lambda: flexible("sam_hq"),
    "SamVisionEncoder": lambda: build("sam").vision_encoder,
    "SamHQVisionEncoder": lambda: build("sam_hq").vision_encoder,
}


def compute(encoder: Any, images: Tensor) -> Features:
    """Walk through an encoder by hand."""
    states = encoder.patch_embed(images) + encoder.pos_embed
    residuals, bottlenecks, whole = [states], [], []
    for layer in encoder.layers:
        normal, window = layer.layer_norm1(states), layer.window_size
        if window:
            normal, padded = layer.window_partition(normal, window)
        qkv = layer.attn.qkv(normal)
        attended = layer.attn(normal)[0]
        if window:
            attended = layer.window_unpartition(attended, window, padded, states.shape[1:3])
        states = states + attended
        hidden = functional.gelu(layer.mlp.lin1(layer.layer_norm2(states)))
        residuals.append(states)
        states = states + layer.mlp.lin2(hidden)
        residuals.append(states)
        bottlenecks.append(Bottleneck(qkv, hidden, window, layer.attn.num_attention_heads))
        if not window:
            whole.append(states)
    return Features(encoder.neck(states), None, tuple(whole), tuple(residuals), tuple(bottlenecks))


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_a_walk_by_hand(name: str) -> None:
    model = MODELS[name]()
    assert type(model).__name__ == name
    wanted = compute(getattr(model, "vision_encoder", model), pixels())
    with observe(model) as seen:
        found = seen.encode(pixels())
        assert seen.features is found
    assert torch.equal(found.embedding, wanted.embedding)
    assert len(found.residuals) == 7 and len(found.bottlenecks) == 3
    for one, other in zip(found.residuals, wanted.residuals, strict=True):
        assert torch.equal(one, other)
    for ours, theirs in zip(found.bottlenecks, wanted.bottlenecks, strict=True):
        assert torch.equal(ours.qkv, theirs.qkv)
        assert torch.allclose(ours.hidden, theirs.hidden, atol=1e-12)
        assert (ours.window, ours.heads) == (theirs.window, theirs.heads)
    assert len(found.intermediate) == ("HQ" in name)
    for one, other in zip(found.intermediate, wanted.intermediate, strict=False):
        assert torch.equal(one, other)
    assert (found.details is not None) == (name in ("SamHQModel", "FlexSamHQModel"))


def test_queries_keys_and_values_are_what_attention_takes() -> None:
    model = build()
    seen: list[Tensor] = []
    with observe(model) as observer:
        found = observer.encode(pixels())
    block = found.bottlenecks[1]
    attention = model.vision_encoder.layers[1].attn

    def take(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
        seen.extend((query, key, value))
        return query

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", take)
        attention(model.vision_encoder.layers[1].layer_norm1(found.residuals[2]))
    for part, taken in zip((block.query, block.key, block.value), seen, strict=True):
        heads = part.unflatten(-1, (4, 6)).flatten(1, 2).transpose(1, 2)
        assert torch.equal(heads, taken)


def test_only_what_is_asked_for_is_kept() -> None:
    model = build()
    with observe(model, residuals=False, bottlenecks=True) as seen:
        found = seen.encode(pixels())
    assert found.residuals == () and len(found.bottlenecks) == 3
    with observe(model, residuals=True, bottlenecks=False) as seen:
        found = seen.encode(pixels())
    assert len(found.residuals) == 7 and found.bottlenecks == ()


def test_nothing_is_left_on_the_model() -> None:
    model = build()

    def hooks() -> int:
        return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())

    before = hooks()
    with pytest.raises(RuntimeError, match="mine"), observe(model) as seen:
        seen.encode(pixels())
        assert hooks() > before
        raise RuntimeError("mine")
    assert hooks() == before
    with pytest.raises(DataError, match="an encoding to look at"):
        seen.features  # noqa: B018
    with observe(model) as seen, pytest.raises(DataError, match="an encoding to look at"):
        seen.features  # noqa: B018


def test_an_encoding_that_fails_leaves_nothing_of_itself() -> None:
    model = build()
    with observe(model) as seen:
        with pytest.raises(ValueError, match="size"):
            seen.encode(pixels()[..., :32])
        assert len(seen.encode(pixels()).residuals) == 7


def test_what_others_run_meanwhile_is_not_recorded() -> None:
    model = build()
    with observe(model) as seen:
        first = seen.encode(pixels())
        model.vision_encoder(pixels() * 2)
        assert torch.equal(seen.features.embedding, first.embedding)
        second = seen.encode(pixels() * 2)
    assert len(second.residuals) == 7
    assert not torch.equal(second.embedding, first.embedding)


@pytest.mark.parametrize("name", ["SamModel", "SamHQModel", "FlexSamModel"])
def test_recomputed_blocks_record_once_and_give_the_same_gradients(name: str) -> None:
    model = MODELS[name]()
    sites = find_family(model).locate(model)

    def gradients(enabled: bool) -> dict[str, Tensor]:
        model.zero_grad()
        with sites.recomputing(enabled), observe(model) as seen:
            found = seen.encode(pixels())
            states = [*found.residuals, *(each.qkv for each in found.bottlenecks)]
            states += [each.hidden for each in found.bottlenecks]
            sum(each.pow(3).mean() for each in states).backward()
            assert len(found.residuals) == 7 and len(seen.features.bottlenecks) == 3
            assert not seen._residuals and not seen._qkv and not seen._hidden
        return {each: grad.grad for each, grad in sites.encoder.named_parameters() if "neck" not in each}

    plain, again = gradients(False), gradients(True)
    for each in plain:
        assert torch.allclose(plain[each], again[each], rtol=1e-12, atol=1e-12), each


def test_a_model_of_no_family_is_refused() -> None:
    with pytest.raises(DataError, match="known family"), observe(nn.Linear(2, 2)):
        pass


def test_tokens_that_see_a_pixel_of_the_photo_are_real() -> None:
    found = mask_tokens([(64, 64), (33, 64), (64, 16), (1, 17)], grid=4, patch_px=16)
    assert found.shape == (4, 4, 4) and found.dtype == torch.bool
    assert found.sum((1, 2)).tolist() == [16, 12, 4, 2]
    assert found[1, :3].all() and not found[1, 3].any()
    assert found[2, :, 0].all() and not found[2, :, 1:].any()


@pytest.mark.parametrize("window", [0, 2, 3, 4, 5])
def test_windows_of_masks_lie_as_those_of_tokens(window: int) -> None:
    layer = build().vision_encoder.layers[0]
    real = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    found = mask_windows(real, window)
    if window:
        wanted, _ = layer.window_partition(real[..., None].double(), window)
        assert torch.equal(found.double(), wanted[..., 0])
    else:
        assert found is real


def test_another_thread_in_the_same_model_is_not_watched() -> None:
    model = build("sam")
    layer, entered = model.vision_encoder.layers[1], []

    def intrude(*_: object) -> None:
        if not entered:
            entered.append(True)
            thread = Thread(target=lambda: model.vision_encoder(pixels() + 1.0))
            thread.start()
            thread.join()

    with observe(model) as alone:
        wanted = alone.encode(pixels())
    with observe(model) as seen:
        handle = layer.register_forward_pre_hook(intrude)
        found = seen.encode(pixels())
        handle.remove()
    assert entered and len(found.residuals) == len(wanted.residuals)
    assert all(torch.equal(one, other) for one, other in zip(found.residuals, wanted.residuals, strict=True))
