"""The small residual network behind the backbones that ship in the wheel."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Apply two 3x3 convolutions with a shortcut (arXiv 1512.03385); the first may stride and widen."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.project = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride] for ``features`` [B, inputs, H, W]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.project(features))


class ResNet8(nn.Module):
    """Turn RGB images of any size into pooled features [B, 4 x width]: a stem and three residual blocks.

    :meth:`maps` gives them before pooling. ``NORMS`` maps each convolution to the normalisation after it.
    """

    NORMS: ClassVar[dict[str, str]] = {
        "stem": "norm",
        **{f"block{i}.conv{j}": f"block{i}.norm{j}" for i in (1, 2, 3) for j in (1, 2)},
    }

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block1 = Block(width, width, 1)
        self.block2 = Block(width, 2 * width, 2)
        self.block3 = Block(2 * width, 4 * width, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, 4 x width] of ``images`` [B, 3, H, W], normalised around 0."""
        return self.maps(images).mean((2, 3))

    def maps(self, images: Tensor) -> Tensor:
        """Return feature maps [B, 4 x width, H / 4, W / 4] of the same ``images``."""
        hidden = functional.relu(self.norm(self.stem(images)))
        found: Tensor = self.block3(self.block2(self.block1(hidden)))
        return found
