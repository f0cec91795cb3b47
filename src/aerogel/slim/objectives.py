"""What is differentiated to score channels: the encoder's outputs along random directions, or a mask loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.core.randomness import derive_seed
from aerogel.errors import DataError, compose

Law = Literal["gaussian", "rademacher"]


class Objective(Protocol):
    """Says what to differentiate for an image, and in which directions."""

    @property
    def draws(self) -> int:
        """How many directions each image is differentiated along."""

    def observe(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return what is differentiated, from the pixels [1, 3, S, S] of one image."""

    def direct(self, outputs: tuple[Tensor, ...], number: int, draw: int) -> tuple[Tensor, ...]:
        """Return the direction of a draw for image ``number``, shaped like the outputs."""


@dataclass(frozen=True)
class Disturbance:
    """Differentiate an encoder's outputs along random directions, drawn from N(0, 1) or from {-1, 1}.

    This is the disturbed loss of SlimSAM without its second pass. Where student and teacher are one model,
    L = |t - (t + N)|² / m over the m elements of the embedding t has the derivative -2 N / m by t, so that
    dL/dw = -(2 / m) Jᵀ N with J = dt/dw: a vector-Jacobian product with noise. Its size is σ times that of
    noise of size 1, and nothing else depends on σ; so directions here are of size 1.

    SAM-HQ's encoder also gives out the residual stream after each global block, for its decoder. These count
    like a second embedding: L gains the mean over the blocks of their mean squared errors, each multiplied by
    (mean square of the embedding / mean square of the block's output), or it would drown the embedding. The
    ``gate`` on the channels of the residual stream, if there is one, acts where they are given out, too.
    """

    encoder: nn.Module
    seed: int
    draws: int = 1
    law: Law = "gaussian"
    gate: Tensor | None = None

    def observe(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the embedding [1, C, h, w], and further outputs [1, h, w, D]."""
        found = self.encoder(pixels)
        further = tuple(getattr(found, "intermediate_embeddings", None) or ())
        if self.gate is not None:
            further = tuple(each * self.gate.to(each.device, each.dtype) for each in further)
        return (found.last_hidden_state, *further)

    def direct(self, outputs: tuple[Tensor, ...], number: int, draw: int) -> tuple[Tensor, ...]:
        """Return a direction that is a function of the seed, the image's number and the draw alone."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "disturbance", number, draw))
        found = []
        for index, output in enumerate(outputs):
            noise = self._draw(output, generator)
            found.append(noise if index == 0 else noise * self._weigh(outputs, output))
        return tuple(found)

    def _draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        if self.law == "gaussian":
            noise = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        else:
            noise = torch.randint(0, 2, output.shape, generator=generator).double() * 2 - 1
        return noise.to(output.dtype).to(output.device)

    @staticmethod
    def _weigh(outputs: tuple[Tensor, ...], output: Tensor) -> float:
        """Return the factor for a further output's noise; squares are later divided by the first's size."""
        first = outputs[0]
        own, wanted = _mean_square(output), _mean_square(first)
        return math.sqrt(wanted / own * first.numel() / output.numel() / (len(outputs) - 1)) if own else 0.0


@dataclass(frozen=True)
class OwnMasks:
    """Differentiate the cross-entropy of a model's mask logits against their own signs.

    Prompts are a fixed grid of single points, ``side`` by ``side``, over the photo: what is not padding, thus
    not exactly zero to the last row and column.
    """

    model: nn.Module
    side: int = 4
    draws: int = 1

    def observe(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the loss, a scalar: the mean over points and pixels of the single mask's logits."""
        points = self._place(pixels)[None, :, None]
        labels = torch.ones(points.shape[:-1], dtype=torch.long, device=points.device)
        found: Any = self.model(
            pixel_values=pixels, input_points=points, input_labels=labels, multimask_output=False
        )
        logits: Tensor = found.pred_masks
        return (functional.binary_cross_entropy_with_logits(logits, (logits.detach() > 0).to(logits.dtype)),)

    def direct(self, outputs: tuple[Tensor, ...], number: int, draw: int) -> tuple[Tensor, ...]:
        """Return one: a loss has but one direction."""
        return tuple(torch.ones_like(each) for each in outputs)

    def _place(self, pixels: Tensor) -> Tensor:
        """Return the points [side², 2], x before y, in pixels of the canvas."""
        filled = (pixels[0] != 0).any(0)
        tall, wide = (_last(filled.any(dim)) for dim in (1, 0))
        steps = (torch.arange(self.side, dtype=torch.float64) + 0.5) / self.side
        y, x = torch.meshgrid(steps * tall, steps * wide, indexing="ij")
        return torch.stack((x, y), -1).reshape(-1, 2).to(pixels.dtype).to(pixels.device)


@dataclass(frozen=True)
class Gradient:
    """Hold what one image and draw gave: derivatives by name, and how many elements the first output has.

    Where a derivative is missing, the outputs do not depend on it.
    """

    values: dict[str, Tensor]
    numel: int


def differentiate(
    objective: Objective, images: Iterable[Tensor], inputs: Mapping[str, Tensor]
) -> Iterator[Gradient]:
    """Yield the derivatives by ``inputs`` for every image and every draw, image by image.

    Nobody's ``.grad`` is touched. An image's graph is freed before the next image is asked for.

    Raises:
        DataError: there is no image, or an image gives derivatives that are not finite.
    """
    number = -1
    for number, pixels in enumerate(images):
        yield from _walk(objective, pixels, inputs, number)
    if number < 0:
        raise DataError(compose("at least one image", "none", "pass the images to score the channels on"))


def _walk(
    objective: Objective, pixels: Tensor, inputs: Mapping[str, Tensor], number: int
) -> Iterator[Gradient]:
    outputs = objective.observe(pixels)
    for draw in range(objective.draws):
        found = torch.autograd.grad(
            outputs,
            tuple(inputs.values()),
            objective.direct(outputs, number, draw),
            retain_graph=draw + 1 < objective.draws,
            allow_unused=True,
        )
        values = {name: each for name, each in zip(inputs, found, strict=True) if each is not None}
        if not all(bool(torch.isfinite(each).all()) for each in values.values()):
            raise DataError(
                compose(
                    "finite derivatives",
                    f"others from image {number}, counted from 0",
                    "look at that image's pixels and at the model's weights; in half precision try float32",
                )
            )
        yield Gradient(values, outputs[0].numel())


def _mean_square(output: Tensor) -> float:
    wide = output.detach().to(torch.promote_types(output.dtype, torch.float32))
    return float(wide.square().mean())


def _last(filled: Tensor) -> int:
    """Return the number of entries up to the last that is true; all of them where none is."""
    places = filled.nonzero()
    return int(places[-1]) + 1 if len(places) else len(filled)
