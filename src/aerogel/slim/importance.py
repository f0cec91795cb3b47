"""Score the channels of a model: how much would be lost without each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.core.randomness import derive_seed, seed_torch
from aerogel.core.registry import nearest
from aerogel.errors import ConfigError, DataError, UnknownNameError, compose
from aerogel.slim.channels import KINDS, Kind
from aerogel.slim.criteria import CRITERIA, Criterion, Subject
from aerogel.slim.families import describe
from aerogel.slim.families.fused import fusing
from aerogel.slim.segmenter import evaluating


def score_channels(
    model: nn.Module,
    images: Iterable[Tensor],
    criterion: str = "channel-fisher",
    *,
    seed: int,
    draws: int = 1,
    noise: float = 0.01,
    kinds: Sequence[Kind] | None = None,
) -> dict[str, Tensor]:
    """Return a score from 0 up for every channel: float64 [size] on the CPU, by group of these ``kinds``.

    ``images`` yields pixels as the model takes them, [B, 3, S, S] and no labels; they are moved to the
    model's device and type and looked at one by one, so how they are batched does not matter. Criteria:

    - "channel-fisher": what the embedding's mean squared error would be without the channel, to the first
      order; each image is projected on ``draws`` random directions, and averages converge: n directions in
      all leave each score uncertain by sqrt(2 / n) of itself, so take a hundred or more;
    - "disturbed-taylor": abs(w · dL/dw) of SlimSAM's disturbed loss, averaged so that it converges, sooner,
      since a channel's many weights each bring a term; proportional to ``noise``, which changes no ranking;
    - "disturbed-taylor-as-coded": the same as SlimSAM's published code has it, for comparison;
    - "taylor": the change of the model's masks against themselves; needs a mask decoder;
    - "magnitude" and "random": without images, for comparison.

    The result depends on the model, the images, their order and ``seed`` alone. The model computes in
    evaluation mode and is as before at the end, also after an error: weights, gradients, what requires them,
    modes, and torch's random state. Gradients are taken block by block with the blocks computed twice, so
    SAM-B at 1024 px fits in 8 GiB. (Section 3.1 of arXiv 2312.05284.)

    Raises:
        ConfigError: no such criterion or kind, or draws, noise or the seed are out of range.
        DataError: no family knows the model; there are no images where they are needed; an image has another
            shape, or gives derivatives that are not finite, and its number is told.
        MismatchError: the criterion needs something that the model lacks.
    """
    score = _find(criterion)
    _require(seed, draws, noise, kinds)
    channels = describe(model)
    groups = tuple(group for group in channels.groups if kinds is None or group.kind in kinds)
    subject = Subject(model, channels, groups, seed, draws, noise)
    singles = _split(images, subject.encoder)
    with (
        _preserving(model),
        seed_torch(derive_seed(seed, "scores")),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        found = score(subject, singles)
    return {group.name: _read(found, group.name, group.size) for group in groups}


def _find(criterion: str) -> Criterion:
    try:
        return CRITERIA.get(criterion)
    except UnknownNameError as unknown:
        raise ConfigError(str(unknown)) from unknown


def _require(seed: int, draws: int, noise: float, kinds: Sequence[str] | None) -> None:
    if draws < 1:
        raise ConfigError(compose("draws of at least 1", str(draws), "disturb each image at least once"))
    if not (noise > 0 and math.isfinite(noise)):
        raise ConfigError(compose("a noise above 0", str(noise), "leave it at 0.01; rankings do not change"))
    if seed < 0:
        raise ConfigError(compose("a seed from 0 up", str(seed), "choose such a seed"))
    if kinds is not None and not kinds:
        raise ConfigError(compose(f"kinds among {', '.join(KINDS)}", "none", "leave kinds out to score all"))
    for kind in kinds or ():
        if kind not in KINDS:
            close = nearest(kind, KINDS)
            remedy = f"did you mean {close!r}?" if close else "choose among these"
            raise ConfigError(compose(f"kinds among {', '.join(KINDS)}", repr(kind), remedy))


@contextmanager
def _preserving(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation without gradients for parameters; at the end everything is as it was."""
    required = [(each, each.requires_grad) for each in model.parameters()]
    with evaluating(model), fusing(model):
        try:
            for parameter, _ in required:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, before in required:
                parameter.requires_grad_(before)


def _split(images: Iterable[Tensor], encoder: Any) -> Iterator[Tensor]:
    """Yield pixels [1, 3, S, S] one by one, as the encoder takes them."""
    first: Tensor = next(iter(encoder.parameters()))
    side = int(encoder.image_size)
    for number, batch in enumerate(images):
        shape = list(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
        fits = isinstance(batch, Tensor) and batch.ndim == 4 and shape[1:] == [3, side, side]
        if not fits or not batch.is_floating_point():
            got = f"{batch.dtype} {shape}" if isinstance(batch, Tensor) else f"{shape}"
            raise DataError(
                compose(
                    f"prepared pixels of floating point [B, 3, {side}, {side}]",
                    f"{got} as batch {number}, counted from 0",
                    "prepare photos with Canvas.place or the model's processor",
                )
            )
        for pixels in batch:
            yield pixels[None].detach().clone().to(first.device, first.dtype)


def _read(scores: dict[str, Tensor], name: str, size: int) -> Tensor:
    values = scores[name].detach().cpu().double()
    if values.shape != (size,) or not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise DataError(
            compose(
                f"{size} finite scores from 0 up for {name}",
                f"{list(values.shape)} with others among them",
                "look at the model's weights; in half precision try float32",
            )
        )
    return values
