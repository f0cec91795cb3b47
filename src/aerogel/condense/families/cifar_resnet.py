"""The residual networks made for CIFAR-10 (arXiv 1512.03385, section 4.2), from a file of published weights.

ResNet-20 to -1202 differ in the number of blocks alone, which the names of the tensors tell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import DataError, compose

# What the published weights were trained on: ImageNet's statistics, as their training code has them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

_STAGES = 3
_BLOCK = re.compile(r"layer([123])\.(\d+)\.(?:conv[12]|bn[12]|shortcut)\.")
_STEM, _HEAD, _PROJECTION = "conv1.weight", "linear.weight", "shortcut.0.weight"


@dataclass(frozen=True)
class Shape:
    """Tell one such network from another: blocks a stage, channels of the first, classes, kind of shortcut.

    Where a stage halves the maps and doubles the channels, ``projected`` shortcuts are 1x1 convolutions (the
    paper's option B); else every second pixel is kept and the new channels are zero (option A).
    """

    blocks: tuple[int, ...]
    width: int
    classes: int
    projected: bool

    @property
    def depth(self) -> int:
        """Return the number of layers with weights as the paper counts them: 56 of three times 9 blocks."""
        return 2 * sum(self.blocks) + 2


class CifarBlock(nn.Module):
    """Apply two 3x3 convolutions and add the block's input, which has as many channels or half of them."""

    def __init__(self, inputs: int, outputs: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs
        self.shortcut: nn.Module | None = None
        if self.added and projected:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, ceil(H / stride), ceil(W / stride)] for ``maps`` [B, inputs, H, W]."""
        hidden = functional.relu(self.bn1(self.conv1(maps)))
        hidden = self.bn2(self.conv2(hidden))
        if self.shortcut is not None:
            maps = self.shortcut(maps)
        elif self.added:
            kept = maps[:, :, :: self.stride, :: self.stride]
            before = self.added // 2
            maps = functional.pad(kept, (0, 0, 0, 0, before, self.added - before))
        return functional.relu(hidden + maps)


class CifarResNet(nn.Module):
    """Classify RGB images in [0, 1] of any size; CIFAR's have 32 pixels.

    ResNet-56 with shortcuts of option A has 853,018 parameters.
    """

    mean: Tensor
    std: Tensor
    channels = 3

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv2d(self.channels, shape.width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.width)
        self.layer1 = _build_stage(shape, 0)
        self.layer2 = _build_stage(shape, 1)
        self.layer3 = _build_stage(shape, 2)
        self.linear = nn.Linear(shape.width * 2 ** (_STAGES - 1), shape.classes)
        self.register_buffer("mean", torch.tensor(MEAN, device="cpu").view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(DEVIATION, device="cpu").view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] in float32 for ``images`` [B, 3, H, W] in [0, 1]."""
        maps = functional.relu(self.bn1(self.conv1((images - self.mean) / self.std)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits.float()


def _build_stage(shape: Shape, stage: int) -> nn.Sequential:
    """Build the blocks of one stage; the first of the second and third stage halves the maps."""
    outputs = shape.width * 2**stage
    first = CifarBlock(outputs // 2 if stage else outputs, outputs, 2 if stage else 1, shape.projected)
    rest = [CifarBlock(outputs, outputs, 1, shape.projected) for _ in range(shape.blocks[stage] - 1)]
    return nn.Sequential(first, *rest)


def recognise(shapes: dict[str, tuple[int, ...]]) -> Shape | None:
    """Return the network that tensors of such names and shapes belong to, or None if it is none of these.

    The blocks are counted; that every tensor is there in the shape it should have is for the caller to check.
    """
    stem, head = shapes.get(_STEM, ()), shapes.get(_HEAD, ())
    blocks: list[set[int]] = [set() for _ in range(_STAGES)]
    for name in shapes:
        if found := _BLOCK.match(name):
            blocks[int(found[1]) - 1].add(int(found[2]))
    gaps = any(numbers != set(range(len(numbers))) for numbers in blocks)
    if len(stem) != 4 or len(head) != 2 or gaps or not all(blocks) or min(*stem, *head) < 1:
        return None
    projected = any(name.endswith(_PROJECTION) for name in shapes)
    return Shape(tuple(len(numbers) for numbers in blocks), stem[0], head[0], projected)


def load_cifar_resnet(path: Path) -> CifarResNet:
    """Load a network from published weights as safetensors, of any precision, to classify and not to train.

    The names and shapes of the tensors are compared with those of the network before any is read.

    Raises:
        DataError: there is no such file, its tensors are not those of such a network, or one holds a value
            that is not a number.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            names = list(stored.keys())
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
            network = _outline(path, shapes)
            weights = {name: stored.get_tensor(name).float() for name in names if _is_read(name)}
    except (OSError, SafetensorError) as failure:
        raise DataError(
            compose(
                "the weights of a CIFAR ResNet as safetensors",
                f"{path}, which cannot be read ({failure})",
                "check the path, or fetch the file again",
            )
        ) from failure
    broken = sorted(name for name, value in weights.items() if not value.isfinite().all())
    if broken:
        raise DataError(
            compose(
                "weights that are finite numbers",
                f"{path} with others in {', '.join(broken[:3])} ({len(broken)} in all)",
                "fetch the file again",
            )
        )
    network.load_state_dict(weights, strict=False, assign=True)
    for name, _ in network.named_buffers():
        if not _is_read(name):
            owner, _, last = name.rpartition(".")
            network.get_submodule(owner).register_buffer(last, torch.zeros((), dtype=torch.int64))
    return network.eval().requires_grad_(False)


def _outline(path: Path, shapes: dict[str, tuple[int, ...]]) -> CifarResNet:
    """Build the network that the tensors belong to without memory for its weights.

    Raises:
        DataError: there is none, or tensors are missing, of another shape, or too many.
    """
    shape = recognise(shapes)
    wrong = []
    if shape is not None:
        with torch.device("meta"):
            network = CifarResNet(shape)
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        read = {name for name in expected if _is_read(name)}
        wrong = sorted(name for name in read | shapes.keys() if shapes.get(name) != expected.get(name))
        if not wrong:
            return network
    title = "a CIFAR ResNet" if shape is None else f"CIFAR ResNet-{shape.depth}"
    raise DataError(
        compose(
            f"the tensors of {title}: conv1, bn1, layer1 to layer3 of basic blocks, linear",
            f"{path} with {len(shapes)} tensors"
            + (f", which differ in {', '.join(wrong[:3])} ({len(wrong)} in all)" if wrong else " of others"),
            "give the weights of such a network, or the folder of a transformers image classifier",
        )
    )


def _is_read(name: str) -> bool:
    return not name.endswith("num_batches_tracked")
