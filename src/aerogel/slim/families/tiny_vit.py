"""TinyViT, the image encoder of MobileSAM (arXiv 2207.10666, section 3.3; arXiv 2306.14289).

A stem divides the image by 4; a first stage of inverted bottlenecks and three stages of attention in windows
follow, each but the last ending in a merge of patches. What the papers leave open is as in the published
model; the names and shapes of its tensors, and the masks that come of them, bear it out:

- rows of ``qkv`` are head after head, and query, key, value within a head (LeViT, arXiv 2104.01136);
- a head's biases are one for each pair (|dy|, |dx|), at ``|dy| * window + |dx|``;
- where a map is no multiple of the window, zeros are added below and to the right before the attention's own
  norm, and the tokens that come of them are attended like any other: nothing is masked;
- the last merge keeps the resolution, so that 1024 pixels give 64 x 64 positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import ConfigError, DataError, compose

SIDE = 16  # pixels of the image for one position of the map


@dataclass(frozen=True)
class TinyVitConfig:
    """Give the shape of a TinyViT, by default that of MobileSAM (TinyViT-5M).

    One value for each of the four stages: channels, number of blocks, heads and the window's side. The first
    stage is convolutional, so that its heads and window are not used.
    """

    embed_dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    num_heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_sizes: tuple[int, int, int, int] = (7, 7, 14, 7)
    mlp_ratio: float = 4.0
    conv_ratio: float = 4.0  # expansion of the first stage's bottlenecks
    output_channels: int = 256

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: a field lacks a value for a stage, or heads cannot share a stage's channels evenly.
        """
        wrong = []
        for name in ("embed_dims", "depths", "num_heads", "window_sizes"):
            values = getattr(self, name)
            whole = isinstance(values, tuple) and all(
                isinstance(value, int) and value > 0 for value in values
            )
            if not whole or len(values) != 4:
                wrong.append(f"{name}={values}, where four whole numbers from 1 are needed")
        if not wrong:
            pairs = list(zip(self.embed_dims, self.num_heads, strict=True))[1:]
            wrong += [f"{dim} channels for {heads} heads" for dim, heads in pairs if dim % heads]
            if self.embed_dims[0] % 2:
                wrong.append(f"{self.embed_dims[0]} channels in the first stage, which is odd")
        if self.output_channels < 1 or self.mlp_ratio <= 0 or self.conv_ratio <= 0:
            wrong.append("an output or a ratio that is not positive")
        if wrong:
            raise ConfigError(
                compose(
                    "four stages whose channels the heads share evenly",
                    "; ".join(wrong),
                    "change these fields; TinyVitConfig() has those of MobileSAM",
                )
            )


class ConvNorm(nn.Module):
    """Convolve without a bias and normalise by batch statistics: by the stored ones in evaluation mode."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] for ``maps`` [B, inputs, H, W]."""
        normalised: Tensor = self.norm(self.conv(maps))
        return normalised


class Stem(nn.Module):
    """Divide the resolution by 4 with two convolutions of stride 2 and a GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, 3, stride=2)
        self.conv2 = ConvNorm(channels // 2, channels, 3, stride=2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return [B, channels, H / 4, W / 4] for ``pixel_values`` [B, 3, H, W]."""
        maps: Tensor = self.conv2(functional.gelu(self.conv1(pixel_values)))
        return maps


class Bottleneck(nn.Module):
    """Widen, convolve depthwise, narrow and add the input: an inverted bottleneck (arXiv 1801.04381)."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.expand = ConvNorm(channels, hidden, 1)
        self.depthwise = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.project = ConvNorm(hidden, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` [B, C, H, W] after the block; a GELU follows the sum too."""
        hidden = functional.gelu(self.depthwise(functional.gelu(self.expand(maps))))
        return functional.gelu(maps + self.project(hidden))


class PatchMerge(nn.Module):
    """Change the channels, and divide the resolution by ``stride``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, outputs, 1)
        self.depthwise = ConvNorm(outputs, outputs, 3, stride=stride, groups=outputs)
        self.project = ConvNorm(outputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] for ``maps`` [B, inputs, H, W]."""
        hidden = functional.gelu(self.depthwise(functional.gelu(self.expand(maps))))
        merged: Tensor = self.project(hidden)
        return merged


class WindowAttention(nn.Module):
    """Let the tokens of a window attend each other, with a learned bias for each head and distance."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.biases = nn.Parameter(torch.zeros(heads, window * window))

    def spread_biases(self) -> Tensor:
        """Return the biases [heads, window ** 2, window ** 2] of all pairs of tokens in a window."""
        side = self.window
        line = torch.arange(side, device=self.biases.device)
        gap = (line[:, None] - line[None, :]).abs()
        table = self.biases.view(self.heads, side, side)
        pairs = table[:, gap[:, None, :, None], gap[None, :, None, :]]
        return pairs.reshape(self.heads, side * side, side * side)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``tokens`` [windows, window ** 2, C] after attention, without the residual."""
        windows, count, channels = tokens.shape
        parted = self.qkv(self.norm(tokens)).view(windows, count, self.heads, 3, channels // self.heads)
        query, key, value = parted.permute(3, 0, 2, 1, 4).unbind(0)
        biases = self.spread_biases().to(query.dtype)[None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=biases)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(windows, count, channels))
        return projected


class Mlp(nn.Module):
    """Normalise, widen, apply a GELU and narrow each token."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.lin1 = nn.Linear(channels, int(channels * ratio))
        self.lin2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``tokens`` [..., C] after both layers, without the residual."""
        narrowed: Tensor = self.lin2(functional.gelu(self.lin1(self.norm(tokens))))
        return narrowed


class AttentionBlock(nn.Module):
    """Attend within windows, mix neighbours with a depthwise convolution, and apply an MLP.

    Attention and MLP are added to their input; the convolution between them is not.
    """

    def __init__(self, channels: int, heads: int, window: int, ratio: float) -> None:
        super().__init__()
        self.attention = WindowAttention(channels, heads, window)
        self.local = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels, ratio)

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` [B, C, H, W] after the block."""
        tokens = maps.permute(0, 2, 3, 1)
        tokens = tokens + attend_windows(self.attention, tokens)
        tokens = self.local(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        summed: Tensor = tokens + self.mlp(tokens)
        return summed.permute(0, 3, 1, 2)


def attend_windows(attention: WindowAttention, tokens: Tensor) -> Tensor:
    """Return ``tokens`` [B, H, W, C] attended window by window.

    Zeros fill up the last row and column of windows. They are not masked: after the attention's norm they are
    its bias, and take their share of the softmax.
    """
    _, height, width, channels = tokens.shape
    side = attention.window
    low, right = -height % side, -width % side
    if low or right:
        tokens = functional.pad(tokens, (0, 0, 0, right, 0, low))
    windows = tokens.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    attended: Tensor = attention(windows.reshape(-1, side * side, channels)).view(windows.shape)
    return attended.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]


class Stage(nn.Module):
    """Run the blocks of one resolution, then merge patches where the stage ends in a merge."""

    def __init__(self, blocks: list[nn.Module], merge: PatchMerge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merge = merge

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` [B, C, H, W] after the blocks and the merge."""
        for block in self.blocks:
            maps = block(maps)
        return maps if self.merge is None else self.merge(maps)


class LayerNorm2d(nn.LayerNorm):
    """Normalise each position of [B, C, H, W] over its channels."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` [B, C, H, W], normalised."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Neck(nn.Module):
    """Bring the channels to those of SAM's decoder, as the neck of SAM's own encoder does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.layer_norm1 = LayerNorm2d(outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.layer_norm2 = LayerNorm2d(outputs, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, H, W] for ``maps`` [B, inputs, H, W]."""
        embeddings: Tensor = self.layer_norm2(self.conv2(self.layer_norm1(self.conv1(maps))))
        return embeddings


class TinyVit(nn.Module):
    """Embed images as MobileSAM does: TinyViT without its classifier, and SAM's neck.

    Sides may differ and be any multiple of 16 pixels; a window wider than the map is filled up with zeros.
    Batch norms follow the module's mode: call ``eval()`` for the published function.
    """

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        dims = config.embed_dims
        self.stem = Stem(dims[0])
        stages = []
        for index, dim in enumerate(dims):
            blocks: list[nn.Module] = []
            for _ in range(config.depths[index]):
                if index == 0:
                    blocks.append(Bottleneck(dim, config.conv_ratio))
                else:
                    heads, window = config.num_heads[index], config.window_sizes[index]
                    blocks.append(AttentionBlock(dim, heads, window, config.mlp_ratio))
            # Two merges of stride 2 after the stem's 4 make 16 pixels a position, which SAM's decoder needs.
            merge = PatchMerge(dim, dims[index + 1], 2 if index < 2 else 1) if index < 3 else None
            stages.append(Stage(blocks, merge))
        self.stages = nn.ModuleList(stages)
        self.neck = Neck(dims[-1], config.output_channels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return embeddings [B, output_channels, H / 16, W / 16] for ``pixel_values`` [B, 3, H, W].

        Pixels are normalised by ImageNet's mean and standard deviation.

        Raises:
            DataError: the pixels have another shape, or a side that is no multiple of 16.
        """
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % SIDE or shape[3] % SIDE or 0 in shape[2:]:
            raise DataError(
                compose(
                    f"pixels [B, 3, H, W] with sides that are multiples of {SIDE}",
                    f"a shape of {list(shape)}",
                    "prepare the images with the model's processor, or pad them with zeros",
                )
            )
        maps = self.stem(pixel_values)
        for stage in self.stages:
            maps = stage(maps)
        embeddings: Tensor = self.neck(maps)
        return embeddings
