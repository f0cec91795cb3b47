"""Build the classifiers that serve as teachers and students."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.borrowed import build_mobilenet_v2, build_swin_t, build_vit_t
from aerogel.core.randomness import seed_torch
from aerogel.core.registry import Registry

NETWORKS: Registry[Callable[..., nn.Module]] = Registry("network")
NETWORKS.register("mobilenet-v2")(build_mobilenet_v2)
NETWORKS.register("swin-t")(build_swin_t)
NETWORKS.register("vit-t")(build_vit_t)


@NETWORKS.register("convnet")
class ConvNet(nn.Module):
    """Classify with the ConvNet of the dataset-distillation literature (arXiv 2006.05929, section 4.1).

    ``depth`` blocks of 3x3 convolution, instance normalisation with affine, ReLU and 2x2 average pooling,
    then one linear layer. A one-channel 28-pixel image is padded to 32 by the first convolution, as in that
    work, so that three blocks end on a 4x4 map.
    """

    def __init__(self, *, channels: int, classes: int, size: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        padding = 3 if channels == 1 and size == 28 else 1
        size = size + 2 * padding - 2
        for block in range(depth):
            layers += [
                nn.Conv2d(channels if block == 0 else width, width, 3, padding=padding if block == 0 else 1),
                nn.GroupNorm(width, width),
                nn.ReLU(inplace=True),
            ]
            if size >= 2:
                layers.append(nn.AvgPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of ``images`` [B, channels, size, size]."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def _build_shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return what a block's input passes beside it: itself, or its projection where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Apply the basic block of a residual network (arXiv 1512.03385, figure 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = _build_shortcut(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output for ``features`` [B, inputs, H, W]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features))


@NETWORKS.register("resnet18")
class ResNet18(nn.Module):
    """Classify with an 18-layer residual network (arXiv 1512.03385).

    Images under 96 pixels get the stem of the CIFAR variant (3x3, stride 1, no pooling), larger ones the
    original 7x7 stem. ``width`` is the channel count of the first stage; 64 is the published network.
    """

    def __init__(self, *, channels: int, classes: int, size: int, width: int = 64, depth: int = 18) -> None:
        super().__init__()
        del depth  # one depth exists; the argument keeps every network's signature the same
        self.stem = _build_stem(channels, width, size)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks.append(ResidualBlock(inputs, outputs, 1 if stage == 0 else 2))
            blocks.append(ResidualBlock(outputs, outputs, 1))
            inputs = outputs
        self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of ``images`` [B, channels, H, W]."""
        logits: Tensor = self.classifier(self.stages(self.stem(images)).mean((2, 3)))
        return logits


class Bottleneck(nn.Module):
    """Apply the bottleneck block of a residual network (arXiv 1512.03385, figure 5 right).

    The stride is the 3x3 convolution's, as in later practice; it gives 4 x ``inner`` channels.
    """

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut = _build_shortcut(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output for ``features`` [B, inputs, H, W]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        hidden = functional.relu(self.norm2(self.conv2(hidden)))
        return functional.relu(self.norm3(self.conv3(hidden)) + self.shortcut(features))


@NETWORKS.register("resnet50")
class ResNet50(nn.Module):
    """Classify with a 50-layer residual network (arXiv 1512.03385), with the stems of :class:`ResNet18`.

    ``width`` is the inner channel count of the first stage's blocks; 64 is the published network.
    """

    def __init__(self, *, channels: int, classes: int, size: int, width: int = 64, depth: int = 50) -> None:
        super().__init__()
        del depth
        self.stem = _build_stem(channels, width, size)
        blocks: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate((3, 4, 6, 3)):
            inner = width * 2**stage
            for index in range(count):
                blocks.append(Bottleneck(inputs, inner, 2 if stage and index == 0 else 1))
                inputs = 4 * inner
        self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of ``images`` [B, channels, H, W]."""
        logits: Tensor = self.classifier(self.stages(self.stem(images)).mean((2, 3)))
        return logits


def _build_stem(channels: int, width: int, size: int) -> nn.Sequential:
    """Build a residual network's stem: 3x3 of stride 1 under 96 pixels, else 7x7 of stride 2 and pooling."""
    small = size < 96
    return nn.Sequential(
        nn.Conv2d(channels, width, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Identity() if small else nn.MaxPool2d(3, 2, 1),
    )


class Classifier(nn.Module):
    """Normalise images from [0, 1] and classify them; what a teacher or a student is.

    ``mean`` and ``std`` hold one value per channel and travel with the weights, so that no caller can feed a
    network with another normalisation than the one it was trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        # A constant channel has no deviation; dividing by it would give no number.
        self.register_buffer("std", torch.tensor(std).clamp_min(1e-3).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] in float32 for ``images`` [B, C, S, S] in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits.float()


def build_classifier(
    name: str,
    *,
    channels: int,
    classes: int,
    size: int,
    width: int | None,
    depth: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
) -> Classifier:
    """Build the network registered as ``name`` with weights drawn from ``seed`` alone.

    ``width`` None is the network's own default.

    Raises:
        UnknownNameError: no network has that name; the nearest one is named.
        ConfigError: the network does not come in that width.
    """
    build = NETWORKS.get(name)
    chosen = {} if width is None else {"width": width}
    with seed_torch(seed):
        network = build(channels=channels, classes=classes, size=size, depth=depth, **chosen)
    return Classifier(network, mean, std)
