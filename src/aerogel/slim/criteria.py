"""The criteria by which channels are scored, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aerogel.core.randomness import uniforms
from aerogel.core.registry import Registry
from aerogel.errors import MismatchError, compose
from aerogel.slim.channels import EMBEDDING, Axis, Channels, Group
from aerogel.slim.gates import hang_gates
from aerogel.slim.objectives import Disturbance, Objective, OwnMasks, differentiate
from aerogel.slim.recomputation import recompute_blocks

_READ = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Subject:
    """What is scored: a model in evaluation mode whose parameters need no gradient, and its groups.

    ``noise`` is the standard deviation of the disturbance, ``draws`` how often each image is disturbed.
    """

    model: nn.Module
    channels: Channels
    groups: tuple[Group, ...]
    seed: int
    draws: int
    noise: float

    @property
    def encoder(self) -> nn.Module:
        """Return the vision encoder, which may be the model itself."""
        return self.model.get_submodule(self.channels.encoder.rstrip("."))


# From what is scored and images [1, 3, S, S] to a score from 0 up for each channel, [size], by group.
Criterion = Callable[[Subject, Iterable[Tensor]], dict[str, Tensor]]
CRITERIA: Registry[Criterion] = Registry("criterion")


@CRITERIA.register("channel-fisher")
def score_by_fisher(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score a channel by the squared derivative of the encoder's outputs by a gate on it.

    With a gate a_c on channel c, J_c = dt/da_c at a = 1 and m elements in the embedding t, the score is
    E |J_c|² / m over images: what the embedding's mean squared error would be without the channel, to the
    first order. It is the diagonal of the Gauss-Newton matrix of that error, and of the Fisher matrix if t
    had Gaussian noise; no label is needed. J_c is the sum over the weights w that read the channel of
    w · dt/dw (:func:`aerogel.slim.gates.hang_gates` says which; for the residual stream it also holds the
    channel's share in LayerNorm's statistics), so the sum is squared and not its terms.

    |J_c|² is estimated by squaring u · J_c with u from {-1, 1}: E (u · J_c)² = |J_c|², with less variance
    than for Gaussian u, 2 (|J_c|⁴ - sum of J_c⁴). Squares are averaged, so more images or draws converge.
    The disturbance's size has no part in it. For SAM-HQ, outputs count as in
    :class:`aerogel.slim.objectives.Disturbance`. (Group Fisher pruning, arXiv 2108.00708, without labels.)
    """
    with _gating(subject) as gates:
        gate = gates.get(EMBEDDING)
        objective = Disturbance(subject.encoder, subject.seed, subject.draws, "rademacher", gate)
        return _average(objective, images, gates, power=2)


@CRITERIA.register("taylor")
def score_by_taylor(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score a channel by the first-order change of the loss of the model's masks against themselves.

    The loss is the cross-entropy of mask logits against their own signs, for a grid of 4 by 4 points: hard
    labels without labels. The score is the mean over images of |dL/da_c| for the gate a_c on the channel,
    thus of |sum of w · dL/dw| over the weights that read it: absolute values are averaged, so that images do
    not cancel and more of them converge. (The criterion of Molchanov et al., arXiv 1611.06440.)

    Raises:
        MismatchError: the model has no mask decoder.
    """
    if not hasattr(subject.model, "mask_decoder"):
        raise MismatchError(
            compose(
                f"a whole model of the family {subject.channels.family!r}, whose masks are the labels",
                f"{type(subject.model).__name__}, without a mask decoder",
                'pass the whole model, or choose the criterion "channel-fisher"',
            )
        )
    with _gating(subject) as gates:
        return _average(OwnMasks(subject.model), images, gates, power=1)


@CRITERIA.register("disturbed-taylor")
def score_by_disturbance(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score a channel by |w · dL/dw| of the disturbed loss, root mean square over images and draws.

    Equation 4 of arXiv 2312.05284, with L the mean squared error between the embedding and the embedding
    plus N(0, noise²); see :class:`aerogel.slim.objectives.Disturbance` for why that is a vector-Jacobian
    product. Sums run over a channel's rows or columns in the weights of linear and convolutional layers, all
    heads together for a dimension within them; the group's score is the mean over these weights. dL/dw has
    expectation 0, so its square is averaged and the root taken at the end: |w| sqrt(E (dL/dw)²), to which
    more images converge. Scores are proportional to ``noise``. For SAM-HQ, outputs count as in Disturbance.
    """
    sums, count, scale = _accumulate(subject, images, power=2)
    return _reduce(subject, {name: (each / count).sqrt() * scale for name, each in sums.items()})


@CRITERIA.register("disturbed-taylor-as-coded")
def score_as_coded(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score as SlimSAM's published code does, for comparison: it does not converge and couples channels.

    Gradients of the disturbed loss are summed over the images and then made positive, which leaves one
    sample of noise however many there are; and channels c, c + d, c + 2 d, … of the residual stream share the
    sum of their scores, with d the number of channels divided by that of heads, as if they were heads.

    Raises:
        MismatchError: the blocks' heads do not divide the residual stream.
    """
    sums, _, scale = _accumulate(subject, images, power=1)
    scores = _reduce(subject, {name: each.abs() * scale for name, each in sums.items()})
    for group in subject.groups:
        if group.kind == EMBEDDING:
            heads = _count_heads(subject.channels, group)
            scores[group.name] = scores[group.name].reshape(heads, -1).sum(0).repeat(heads)
    return scores


@CRITERIA.register("magnitude")
def score_by_magnitude(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score a channel by the sum of |w|, the mean over the group's linear and convolutional weights.

    Takes no images. (The baseline of arXiv 2312.05284, table 2.)
    """
    return _reduce(subject, dict.fromkeys(_find_weights(subject), None))


@CRITERIA.register("random")
def score_at_random(subject: Subject, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score channels by uniform numbers from the seed and the group's name; takes no images."""
    return {
        group.name: torch.from_numpy(
            uniforms(subject.seed, f"scores/{group.name}", 0, torch.arange(group.size).numpy(), 1)[:, 0]
        )
        for group in subject.groups
    }


@contextmanager
def _gating(subject: Subject) -> Iterator[dict[str, Tensor]]:
    with (
        hang_gates(subject.model, subject.groups) as gates,
        recompute_blocks(subject.model, subject.channels),
    ):
        yield gates


def _average(
    objective: Objective, images: Iterable[Tensor], gates: dict[str, Tensor], power: int
) -> dict[str, Tensor]:
    """Return the mean of a power of the derivatives' sizes, divided by the output's number of elements."""
    sums = {name: torch.zeros(len(gate), dtype=torch.float64) for name, gate in gates.items()}
    count = 0
    for gradient in differentiate(objective, images, gates):
        count += 1
        for name, value in gradient.values.items():
            sums[name] += value.cpu().double().abs() ** power / gradient.numel
    return {name: each / count for name, each in sums.items()}


def _accumulate(
    subject: Subject, images: Iterable[Tensor], power: int
) -> tuple[dict[str, Tensor], int, float]:
    """Return sums of a power of the derivatives by weights, for noise of size 1.

    Also how many were summed, and by what one must be multiplied to be the disturbed loss's.
    """
    weights = _find_weights(subject)
    sums: dict[str, Tensor] = {}
    count, numel = 0, 1
    objective = Disturbance(subject.encoder, subject.seed, subject.draws)
    for weight in weights.values():
        weight.requires_grad_(True)
    with recompute_blocks(subject.model, subject.channels):
        for gradient in differentiate(objective, images, weights):
            count, numel = count + 1, gradient.numel
            for name, value in gradient.values.items():
                term = value.to(torch.promote_types(value.dtype, torch.float32)) ** power
                sums[name] = sums[name].add_(term) if name in sums else term
    return sums, count, 2 * subject.noise / numel


def _find_weights(subject: Subject) -> dict[str, Tensor]:
    """Return the weights of linear and convolutional layers in which the groups have channels."""
    found: dict[str, Tensor] = {}
    for group in subject.groups:
        for axis in group.axes:
            owner, _, name = axis.parameter.rpartition(".")
            if name == "weight" and isinstance(subject.model.get_submodule(owner), _READ):
                found[axis.parameter] = subject.model.get_parameter(axis.parameter)
    return found


def _reduce(subject: Subject, factors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Return for each group the mean over its weights of the channels' sums of |w| times a factor.

    Weights without an entry in ``factors`` are no members; None stands for 1.
    """
    sized: dict[str, Tensor] = {}
    weights = _find_weights(subject)
    for name, factor in factors.items():
        absolute = weights[name].detach().abs()
        sized[name] = absolute if factor is None else absolute * factor
    scores = {}
    for group in subject.groups:
        members = [
            _fold(group, axis, sized[axis.parameter]) for axis in group.axes if axis.parameter in sized
        ]
        scores[group.name] = torch.stack(members).mean(0)
    return scores


def _fold(group: Group, axis: Axis, values: Tensor) -> Tensor:
    """Return the sums [size] over all that belongs to each channel along one of the group's axes."""
    others = [dim for dim in range(values.ndim) if dim != axis.dim]
    line = values.cpu().double().sum(others)
    length = axis.repeats * group.size * axis.block
    return line[axis.offset : axis.offset + length].reshape(axis.repeats, group.size, axis.block).sum((0, 2))


def _count_heads(channels: Channels, embedding: Group) -> int:
    heads = {group.size for group in channels.of_kind("heads")}
    if len(heads) != 1 or embedding.size % min(heads):
        raise MismatchError(
            compose(
                "the same number of heads in every block, which divides the embedding's width",
                f"{', '.join(map(str, sorted(heads)))} heads for {embedding.size} channels",
                'choose the criterion "disturbed-taylor"',
            )
        )
    return heads.pop()
