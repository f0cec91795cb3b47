"""Train a small classifier of Fashion-MNIST, to judge pictures that others drew without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from aerogel.core.randomness import derive_seed, permutation, seed_torch
from aerogel.zoo import ImageSet

CLASSES = 10
SIZE = 28


@dataclass(frozen=True)
class Verdict:
    """Tell how many of the pictures of each class were recognised as that class."""

    share: float
    per_class: tuple[float, ...]


class FashionClassifier(nn.Module):
    """Classify grey pictures of 28x28 pixels; those that are larger are cut to their centre."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 128), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(128, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """Return what the last layer sees, [B, 128], of ``images`` [B, 1, S, S] from 0 to 1."""
        edge = (images.shape[-1] - SIZE) // 2
        images = images[..., edge : edge + SIZE, edge : edge + SIZE]
        found: Tensor = self.layers((images - 0.286) / 0.353)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 10] of ``images`` [B, 1, S, S] from 0 to 1."""
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits


def shift(images: Tensor, seed: int, step: int) -> Tensor:
    """Mirror half of the pictures, and move the whole batch by up to one pixel each way."""
    chance = np.random.default_rng(derive_seed(seed, "shift", step, len(images)))
    mirrored = torch.from_numpy(chance.random(len(images)) < 0.5).view(-1, 1, 1, 1)
    images = torch.where(mirrored, images.flip(3), images)
    down, right = chance.integers(0, 3, 2).tolist()
    return functional.pad(images, (1, 1, 1, 1))[..., down : down + SIZE, right : right + SIZE]


def train_classifier(
    data: ImageSet, *, epochs: int = 10, batch_size: int = 128, lr: float = 2e-3, seed: int = 1
) -> Iterator[tuple[FashionClassifier, float]]:
    """Train on ``data``; yield the classifier and its mean loss after every epoch."""
    with seed_torch(derive_seed(seed, "classifier")):
        model = FashionClassifier()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    per_epoch = len(data) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * per_epoch)
    for epoch in range(epochs):
        order = torch.from_numpy(permutation(seed, "classifier", epoch, len(data)))
        losses = []
        model.train()
        with seed_torch(derive_seed(seed, "dropout", epoch)):
            for step, chosen in enumerate(order[: per_epoch * batch_size].split(batch_size)):
                images = shift(data.images[chosen].float() / 255, seed, epoch * per_epoch + step)
                loss = functional.cross_entropy(model(images), data.labels[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
        yield model.eval(), sum(losses) / len(losses)


def judge(model: FashionClassifier, images: Tensor, labels: Tensor) -> Verdict:
    """Return the shares of ``images`` [N, 1, S, S], from 0 to 1, that are recognised as ``labels`` [N]."""
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in images.split(250)])
    right = (found == labels).float()
    per_class = tuple(float(right[labels == each].mean()) for each in range(CLASSES))
    return Verdict(float(right.mean()), per_class)


def obtain_classifier(path: Path, data: ImageSet, **options: int) -> FashionClassifier:
    """Return the classifier stored at ``path``; train it on ``data`` and store it there if there is none."""
    if path.exists():
        model = FashionClassifier()
        model.load_state_dict(load_file(path))
        return model.eval()
    model = FashionClassifier()
    for epoch, (trained, loss) in enumerate(train_classifier(data, **options)):
        model = trained
        print(f"classifier: epoch {epoch + 1} loss {loss:.4f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model
