"""Order channels so that the first say most of what a layer makes of all of them, by least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.slim.channels import name_group
from aerogel.slim.families.family import find_family
from aerogel.slim.families.fused import fusing
from aerogel.slim.moments import encode_all, to_exact
from aerogel.slim.segmenter import evaluating

# Channels are held a little shorter than they are, so that copies of chosen ones win nothing.
_RIDGE = 1e-2
# What is left to say is rounding below this share.
_NOTHING = 1e-7


def score_mlps(
    model: nn.Module, images: Iterable[Tensor], *, most: int | None = None, half: bool = False
) -> dict[str, Tensor]:
    """Return a score from 0 to 1 for each hidden channel of each block's MLP, by group: float64 [size].

    Scores are those of :func:`order_channels` for the layer that the hidden channels go into. Channels that
    others can stand in for score low, however much they do: so fit what stays after the cut, see
    :func:`aerogel.slim.reconstruction.reconstruct_`. ``images`` yields pixels [1, 3, S, S]; no more than
    ``most`` channels of a block are put in order; ``half`` computes what is looked at in bfloat16.

    Raises:
        DataError: there is no image, or no family knows the model.
    """
    sites = find_family(model).locate(model)
    spreads = [Spread() for _ in sites.blocks]

    def watch(spread: Spread) -> Callable[[Any, tuple[Tensor, ...]], None]:
        return lambda module, given: spread.add(given[0])

    hooks = [
        block.narrow.register_forward_pre_hook(watch(spread))
        for block, spread in zip(sites.blocks, spreads, strict=True)
    ]
    with torch.no_grad(), evaluating(model), fusing(model):
        encode_all(sites.encoder, images, half, hooks)
    found = {}
    for number, (block, spread) in enumerate(zip(sites.blocks, spreads, strict=True)):
        layer: Any = block.narrow
        covariance = spread.covariance()
        weight = layer.weight.detach().to(covariance.device).double()
        found[name_group("mlp", number)] = order_channels(covariance, weight, most).cpu()
    return found


def weigh_shares(shares: Mapping[str, Tensor], losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return scores of :func:`score_mlps` so that those of different blocks can be compared.

    A share of what an MLP says is worth what the MLP is worth: a group's ``shares`` [channels] are multiplied
    by the sum of its ``losses`` [channels], what each of its channels would cost alone.
    """
    return {name: values * losses[name].to(values).sum() for name, values in shares.items()}


@dataclass
class Spread:
    """Gather means and second moments of channels over the tokens of images, in float64."""

    count: int = 0
    mean: Any = 0.0
    moments: Any = field(default=0.0, repr=False)

    def add(self, states: Tensor) -> None:
        """Take the states [..., channels] of one image."""
        flat = states.flatten(0, -2)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        middle = flat.mean(0)
        flat = flat - middle
        # Centred before they are multiplied, as small differences between large means count.
        middle, within = to_exact(middle), to_exact(flat.T @ flat / len(flat))
        self.count += 1
        self.mean = self.mean + middle
        self.moments = self.moments + within + torch.outer(middle, middle)

    def covariance(self) -> Tensor:
        """Return the covariance [channels, channels]."""
        mean = self.mean / self.count
        found: Tensor = self.moments / self.count - torch.outer(mean, mean)
        return found


def order_channels(covariance: Tensor, weight: Tensor, most: int | None = None) -> Tensor:
    """Return a score [channels] for each input of a linear layer of ``weight`` [outputs, channels].

    The channels are chosen one by one: next comes the one that, with those before it, explains the layer's
    outputs best by least squares. Its score is the share of the outputs' variance that was left to explain,
    so scores fall from 1 in the order of choice, and the channels of the highest scores are the subset that
    was built up. After ``most`` of them, or when nothing is left to explain, the others share scores below
    all these, by what each would explain next. (Orthogonal matching; ThiNet, arXiv 1707.06342, chooses
    greedily for the same error.)
    """
    size = len(covariance)
    count = size if most is None else min(most, size)
    powers = covariance.diagonal() * (1 + _RIDGE)
    left = torch.where(powers > 0, powers, 1.0)
    aims = covariance @ weight.T
    total = float((aims * weight.T).sum())
    found, rest = covariance.new_zeros(size, dtype=torch.float64), total
    taken = covariance.new_zeros(size, dtype=torch.bool)
    # Columns of the pivoted Cholesky factor of the chosen channels.
    factor = covariance.new_zeros(size, count, dtype=torch.float64)
    for step in range(count):
        gains = (aims.square().sum(1) / left).masked_fill(taken, -1.0)
        best = int(gains.argmax())
        if total <= 0 or rest <= _NOTHING * total or float(gains[best]) <= _NOTHING * total / size:
            break
        found[best], taken[best] = rest / total, True
        column = covariance[:, best] - factor[:, :step] @ factor[best, :step]
        column[best] = left[best]
        column = column / left[best].sqrt()
        aims = aims - torch.outer(column, aims[best] / left[best].sqrt())
        left = (left - column.square()).clamp(min=1e-12 * float(powers.max()))
        factor[:, step] = column
        rest -= float(gains[best])
    others = (aims.square().sum(1) / left).masked_fill(taken, 0.0)
    return torch.where(taken, found, _NOTHING / size * others / (float(others.max()) or 1.0))
