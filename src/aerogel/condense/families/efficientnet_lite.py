"""EfficientNet-Lite0 from a file of its published ImageNet weights: a public backbone that needs no hub.

The Lite variants are EfficientNets (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.families.architectures import is_ungrouped
from aerogel.condense.families.backbone import Backbone, choose_grid, hash_weights
from aerogel.condense.families.preparation import Preparation
from aerogel.condense.families.same_padding import SameConv2d
from aerogel.condense.families.towers import Tower
from aerogel.core.documents import read_tensors
from aerogel.errors import DataError, IntegrityError, compose

FEATURES = 1280
SIDE = 224
# (x - 127) / 128 of pixels up to 255, as in its training.
PREPARATION = Preparation((SIDE, SIDE), None, "bicubic", 255.0, (127.0,) * 3, (128.0,) * 3)

_EPSILON = 1e-3
_STEM = 32
# Kernel, stride of the first block, expansion, channels, blocks: the lines of EfficientNet-B0's table.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_CLASSIFIER = {"_fc.weight": (1000, FEATURES), "_fc.bias": (1000,)}
# Published names, without their first underscores, and ours. "head" is the generator's own.
_NAMES = {
    r"^conv_stem\b": "stem",
    r"^bn0\b": "stem_norm",
    r"^conv_head\b": "top",
    r"^bn1\b": "top_norm",
    r"\bexpand_conv\b": "expand",
    r"(?<=\d\.)bn0\b": "expand_norm",
    r"\bdepthwise_conv\b": "depthwise",
    r"(?<=\d\.)bn1\b": "depthwise_norm",
    r"\bproject_conv\b": "project",
    r"(?<=\d\.)bn2\b": "project_norm",
}


class InvertedBottleneck(nn.Module):
    """Widen, convolve channel by channel, narrow (arXiv 1801.04381), with a shortcut if shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False) if expansion > 1 else None
        self.expand_norm = nn.BatchNorm2d(hidden, _EPSILON) if expansion > 1 else None
        self.depthwise = SameConv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden, _EPSILON)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs, _EPSILON)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] for ``maps`` [B, inputs, H, W]."""
        hidden = maps
        if self.expand is not None and self.expand_norm is not None:
            hidden = functional.relu6(self.expand_norm(self.expand(hidden)))
        hidden = functional.relu6(self.depthwise_norm(self.depthwise(hidden)))
        hidden = torch.as_tensor(self.project_norm(self.project(hidden)))
        return hidden + maps if self.shortcut else hidden


class EfficientNetLite0(nn.Module):
    """Turn prepared RGB images into feature maps.

    It has 3,371,008 parameters, to which the published classifier, left out here, adds 1,281,000.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, _STEM, 3, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(_STEM, _EPSILON)
        blocks, inputs = [], _STEM
        for kernel, stride, expansion, outputs, count in _STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedBottleneck(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.top = nn.Conv2d(inputs, FEATURES, 1, bias=False)
        self.top_norm = nn.BatchNorm2d(FEATURES, _EPSILON)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return maps [B, 1280, H / 32, W / 32] of ``pixels`` [B, 3, H, W] from about -1 to 1."""
        maps = functional.relu6(self.stem_norm(self.stem(pixels)))
        for block in self.blocks:
            maps = block(maps)
        return functional.relu6(self.top_norm(self.top(maps)))


class LiteTower(Tower):
    """Read the maps of EfficientNet-Lite0."""

    def __init__(self, network: EfficientNetLite0, grid: int) -> None:
        super().__init__(PREPARATION, grid)
        self.network = network

    def see(self, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the maps alone."""
        return None, self.network(pixels)


def rename_weight(name: str) -> str:
    """Return our name for a published one, such as ``_blocks.3._bn0.weight``."""
    plain = re.sub(r"(^|\.)_", r"\1", name)
    for pattern, ours in _NAMES.items():
        plain = re.sub(pattern, ours, plain)
    return plain


def read_network(path: Path) -> EfficientNetLite0:
    """Read the network, without its classifier, from the published weights as safetensors of any precision.

    A link is followed, as a hub's cache consists of links. Names and shapes are compared with a network
    without memory first, so that a file that claims others costs nothing.

    Raises:
        DataError: there is no such file, or its tensors are not those of EfficientNet-Lite0.
    """
    try:
        stored, _ = read_tensors(os.path.realpath(path))
    except IntegrityError as failure:
        raise DataError(
            compose(
                "the weights of EfficientNet-Lite0 as safetensors",
                f"{path}, which cannot be read ({failure})",
                "check the path, or fetch the file again",
            )
        ) from failure
    named = [(rename_weight(name), value) for name, value in stored.items() if name not in _CLASSIFIER]
    found = dict(named)
    with torch.device("meta"):
        expected = EfficientNetLite0().state_dict()
    # Counters of batches may be left out: nothing reads them in evaluation mode.
    wanted = {name: value for name, value in expected.items() if _is_read(name) or name in found}
    wrong = sorted(
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted or name not in found or not _fits(name, found[name], wanted[name])
    )
    if wrong or len(found) != len(named):
        raise DataError(
            compose(
                f"the {len(wanted)} finite tensors of EfficientNet-Lite0, the one network opened from a file",
                f"{path}, whose tensors differ in {', '.join(wrong[:3])[:300]} ({len(wrong)} in all)"
                if wrong
                else f"{path}, with {len(named) - len(found)} tensors twice",
                "give that network's file, or the folder of a transformers model",
            )
        )
    with torch.random.fork_rng(devices=[]):
        network = EfficientNetLite0()
    network.load_state_dict({**network.state_dict(), **found})
    return network.float().eval()


def _fits(name: str, found: Tensor, wanted: Tensor) -> bool:
    same = found.shape == wanted.shape and (found.is_floating_point() or not _is_read(name))
    return same and bool(found.isfinite().all())


def _is_read(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def load_efficientnet_lite(name: str, grid: int | None = None, *, size: int = 0) -> Backbone:
    """Open EfficientNet-Lite0 by its file; every convolution over all channels takes a low-rank change.

    Its features are those of ``grid`` x ``grid`` cells; None is 2 x 2 for images of a ``size`` from 16 pixels
    up, else 1. Images are resized to 224 pixels, the size of its training.

    Raises:
        DataError: there is no such file, or it holds other weights.
    """
    path, grid = Path(name), grid or choose_grid(size)
    tower = LiteTower(read_network(path), grid).eval().requires_grad_(False)
    layers = dict(tower.named_modules())
    return Backbone(
        name=name,
        module=tower,
        features=FEATURES * grid**2,
        grid=grid,
        lora_targets=tuple(key for key, layer in layers.items() if is_ungrouped(key, layer)),
        sha256=hash_weights(tower),
        size_bytes=path.stat().st_size,
        norms={key: f"{key}_norm" for key, layer in layers.items() if isinstance(layer, nn.Conv2d)},
    )
