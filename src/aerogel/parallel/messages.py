"""What the first process of a group says to the others, and they to it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import torch

from aerogel.errors import DeviceError, compose
from aerogel.parallel.layout import Layout
from aerogel.parallel.numerics import Numerics
from aerogel.parallel.parcel import Parcel
from aerogel.parallel.rounds import Round


@dataclass(frozen=True)
class Turn:
    """Ask for one round of a lane; the parcel holds the arguments of its calls by step.

    ``data`` is the parcel's buffer, or None where it comes by itself.
    """

    lane: str
    planned: Round
    autocast: torch.dtype | None
    parcel: Parcel
    data: bytes | None


@dataclass(frozen=True)
class Join:
    """Tell workers where their group meets, and which core each rank keeps to, if any."""

    store: str
    backend: str
    timeout_s: float
    numerics: Numerics
    cores: tuple[int, ...] = ()


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
    """Report how a worker failed: by itself, or (``lost``) because another process did not answer."""

    rank: int
    text: str
    lost: bool


def pack_message(message: Any) -> bytes:
    """Return ``message`` as bytes for another process of the same run, and for nobody else.

    Raises:
        DeviceError: it holds something that only this process has.
    """
    try:
        return pickle.dumps(message)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise DeviceError(
            compose(
                "arguments of the denoiser that another process can be given",
                f"some that cannot be pickled ({error})",
                "pass tensors, numbers and text, or objects of classes at the top of a module",
            )
        ) from error


def open_message(data: bytes) -> Any:
    """Return what :func:`pack_message` was given by another process of the same run."""
    return pickle.loads(data)
