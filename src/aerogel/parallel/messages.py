"""What the first process of a group says to the others, and they to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aerogel.parallel.layout import Layout
from aerogel.parallel.parcel import Parcel
from aerogel.parallel.rounds import Round


@dataclass(frozen=True)
class Turn:
    """Ask for one round of a lane; the parcel holds the arguments of its calls by step."""

    lane: str
    planned: Round
    autocast: torch.dtype | None
    parcel: Parcel


@dataclass(frozen=True)
class Join:
    """Tell a worker where its group meets."""

    store: str
    backend: str
    timeout_s: float


@dataclass(frozen=True)
class TakeModel:
    """Give the skeleton of a denoiser; one of the same name, and its lanes, are forgotten."""

    name: str
    skeleton: bytes


@dataclass(frozen=True)
class OpenLane:
    """Open a lane; the weights that each rank lacks follow, by rank and name."""

    key: str
    model: str
    layout: Layout
    stride: int
    weights: dict[int, list[str]]


@dataclass(frozen=True)
class Failure:
    """Report how a worker failed."""

    rank: int
    text: str
