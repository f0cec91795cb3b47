"""The encoder's parts do what the papers say, and its windows are those of a loop over tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import ConfigError, DataError
from aerogel.slim.families.tiny_vit import (
    AttentionBlock,
    Bottleneck,
    ConvNorm,
    LayerNorm2d,
    PatchMerge,
    TinyVit,
    TinyVitConfig,
    WindowAttention,
    attend_windows,
)
from tests.unit.slim.families.tiny_mobile_sam import SHAPE, draw_weights


def make_encoder(seed: int = 0) -> TinyVit:
    encoder = TinyVit(SHAPE)
    draw_weights(encoder, seed)
    return encoder.eval()


def make_attention(channels: int, heads: int, window: int) -> WindowAttention:
    attention = WindowAttention(channels, heads, window)
    draw_weights(attention)
    with torch.no_grad():
        attention.biases.copy_(
            torch.arange(float(attention.biases.numel())).view_as(attention.biases).sin() * 2
        )
    return attention.double()


def attend_by_loops(attention: WindowAttention, tokens: Tensor, *, masked: bool = False) -> Tensor:
    """Attend one [H, W, C] map, token by token: what lies beyond it is zero before the norm."""
    height, width, channels = tokens.shape
    side, heads = attention.window, attention.heads
    size = channels // heads

    def project(y: int, x: int) -> Tensor:
        inside = y < height and x < width
        token = tokens[y, x] if inside else torch.zeros(channels, dtype=tokens.dtype)
        return attention.qkv(attention.norm(token))

    result = torch.zeros_like(tokens)
    for y in range(height):
        for x in range(width):
            top, left = y // side * side, x // side * side
            others = [(top + dy, left + dx) for dy in range(side) for dx in range(side)]
            if masked:
                others = [(b, a) for b, a in others if b < height and a < width]
            mixed = []
            for head in range(heads):
                own = slice(head * 3 * size, (head + 1) * 3 * size)
                query = project(y, x)[own][:size]
                logits, values = [], []
                for b, a in others:
                    _, key, value = project(b, a)[own].split(size)
                    bias = attention.biases[head, abs(b - y) * side + abs(a - x)]
                    logits.append(query @ key / math.sqrt(size) + bias)
                    values.append(value)
                mixed.append(torch.stack(logits).softmax(0) @ torch.stack(values))
            result[y, x] = attention.proj(torch.cat(mixed))
    return result


@pytest.mark.parametrize(("height", "width", "window"), [(4, 4, 2), (3, 5, 2), (2, 2, 3), (4, 3, 3)])
@torch.no_grad()
def test_windows_are_those_of_a_loop_over_tokens(height: int, width: int, window: int) -> None:
    attention = make_attention(6, 2, window)
    tokens = torch.randn(2, height, width, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = attend_windows(attention, tokens)
    assert ours.shape == tokens.shape
    for image in range(2):
        assert torch.allclose(ours[image], attend_by_loops(attention, tokens[image]), atol=1e-12)


@torch.no_grad()
def test_tokens_beyond_the_map_are_attended() -> None:
    attention = make_attention(6, 2, 3)
    tokens = torch.randn(1, 4, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours, masked = attend_windows(attention, tokens)[0], attend_by_loops(attention, tokens[0], masked=True)
    assert torch.allclose(ours[:3, :3], masked[:3, :3], atol=1e-12)
    assert float((ours - masked)[3].abs().max()) > 1e-2
    assert float((ours - masked)[:, 3].abs().max()) > 1e-2


@torch.no_grad()
def test_a_block_adds_attention_and_mlp_and_replaces_by_its_convolution() -> None:
    block = AttentionBlock(6, 2, 2, 4.0)
    draw_weights(block)
    block.double().eval()
    maps = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    after = maps + attend_windows(block.attention, maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    mixed = block.local(after)
    expected = mixed + block.mlp(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(block(maps), expected, atol=1e-12)
    for layer in (block.attention.proj, block.mlp.lin2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.allclose(block(maps), block.local(maps), atol=1e-12)


@torch.no_grad()
def test_a_bottleneck_ends_in_a_gelu_and_a_merge_does_not() -> None:
    bottleneck, merge = Bottleneck(4, 2.0), PatchMerge(4, 6, 2)
    draw_weights(bottleneck)
    draw_weights(merge)
    bottleneck.eval()
    merge.eval()
    nn.init.zeros_(bottleneck.project.norm.weight)
    nn.init.zeros_(bottleneck.project.norm.bias)
    maps = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(4))
    assert torch.equal(bottleneck(maps), functional.gelu(maps))
    nn.init.zeros_(merge.project.norm.weight)
    nn.init.constant_(merge.project.norm.bias, -3.0)
    assert torch.equal(merge(maps), torch.full((1, 6, 3, 3), -3.0))


@torch.no_grad()
def test_norms_are_those_of_their_formulas() -> None:
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    norm = LayerNorm2d(5, eps=1e-6)
    draw_weights(norm)
    norm.double()
    centred = maps - maps.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm(maps), expected, atol=1e-12)
    conv = ConvNorm(5, 2, 3)
    draw_weights(conv)
    conv.double().eval()
    mean, var = conv.norm.running_mean, conv.norm.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    plain = functional.conv2d(maps, conv.conv.weight, padding=1)
    scaled = (plain - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    expected = scaled * conv.norm.weight[:, None, None] + conv.norm.bias[:, None, None]
    assert torch.allclose(conv(maps), expected, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 16), (48, 80), (112, 32)])
@torch.no_grad()
def test_a_position_for_each_16_pixels(height: int, width: int) -> None:
    embeddings = make_encoder()(torch.randn(2, 3, height, width))
    assert embeddings.shape == (2, 32, height // 16, width // 16)
    assert bool(embeddings.isfinite().all())


def test_the_default_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        encoder = TinyVit(TinyVitConfig())
        embeddings = encoder.eval()(torch.empty(1, 3, 1024, 1024))
    assert embeddings.shape == (1, 256, 64, 64)
    published = 6_065_532  # image_encoder.* of the checkpoint, without its batch norms' statistics
    classifier = 1000 * 320 + 1000 + 2 * 320
    assert sum(parameter.numel() for parameter in encoder.parameters()) == published - classifier


@torch.no_grad()
def test_evaluation_repeats_and_leaves_the_encoder_alone() -> None:
    encoder = make_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    kept = pixels.clone()
    first = encoder(pixels)
    assert torch.equal(first, encoder(pixels))
    assert torch.allclose(first[1:2], encoder(pixels[1:2]), atol=1e-5)
    assert torch.equal(pixels, kept)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_gradients_are_those_of_finite_differences_and_reach_every_weight() -> None:
    encoder = make_encoder().double()
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(1, 3, 48, 64, dtype=torch.float64, generator=generator, requires_grad=True)
    probe = torch.randn(1, 32, 3, 4, dtype=torch.float64, generator=generator)
    (encoder(pixels) * probe).sum().backward()
    leaves = [pixels, *encoder.parameters()]
    slopes = [leaf.grad for leaf in leaves]
    assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes)
    dead = [name for name, weight in encoder.named_parameters() if not bool(weight.grad.any())]  # type: ignore[union-attr]
    assert dead == []
    steps = [torch.randn(leaf.shape, dtype=torch.float64, generator=generator) for leaf in leaves]
    expected = sum(float((slope * step).sum()) for slope, step in zip(slopes, steps, strict=True))
    values = []
    with torch.no_grad():
        for move in (1e-5, -2e-5):
            for leaf, step in zip(leaves, steps, strict=True):
                leaf.add_(step, alpha=move)
            values.append(float((encoder(pixels) * probe).sum()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-5)


def test_training_mode_uses_the_batch() -> None:
    encoder = make_encoder()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        still = encoder(pixels)
        moving = encoder.train()(pixels)
    assert not torch.allclose(still, moving, atol=1e-3)
    assert bool((moving - encoder.eval()(pixels)).abs().max() > 1e-3)


@pytest.mark.parametrize(
    "shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 60, 64), (1, 3, 64, 72), (1, 3, 0, 64)]
)
def test_other_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"multiples of 16; got a shape of \["):
        make_encoder()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"embed_dims": (4, 8, 12)}, r"embed_dims=\(4, 8, 12\)"),
        ({"depths": (1, 0, 1, 1)}, r"depths=\(1, 0, 1, 1\)"),
        ({"depths": 2, "window_sizes": (3, 3, 3.5, 3)}, r"depths=2, .*window_sizes=\(3, 3, 3\.5, 3\)"),
        ({"num_heads": (1, 3, 3, 2), "output_channels": 0}, "8 channels for 3 heads; an output"),
        ({"embed_dims": (5, 8, 12, 16)}, "5 channels in the first stage"),
        ({"mlp_ratio": 0.0}, "not positive"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        replace(SHAPE, **change)
