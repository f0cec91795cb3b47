"""Decode photos and place their views on the canvas, some ahead of those that are being learnt from."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aerogel.core.ahead import read_ahead
from aerogel.core.randomness import derive_seed, uniforms
from aerogel.slim.canvas import Canvas
from aerogel.slim.config import AlignConfig, Augment
from aerogel.slim.lesson import Shown
from aerogel.slim.views import DRAWS, MOSAIC_DRAWS, TILES, View, lay_mosaic, show

_MOSAICS = 0.5  # share of the views of "mosaic"


class PhotoList(Protocol):
    """Give photos by number, each with an ``identifier`` and an ``image`` uint8 [H, W, 3].

    Photos are asked for on several threads at a time.
    """

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the photos, in order."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def load_views(
    photos: PhotoList, canvas: Canvas, config: AlignConfig, seed: int, order: Iterable[tuple[int, int]]
) -> Generator[Shown, None, None]:
    """Yield the views of photos, pixels on the CPU, for each (epoch, number of a photo) of ``order``.

    A view, and the seed of what is asked about it, are functions of the seed, epoch and number alone.
    """
    return read_ahead(partial(_load, photos, canvas, config, seed), order)


def count_repeated(photos: int, config: AlignConfig, *, shared: bool = False) -> int:
    """Return how many views of so many ``photos`` are shown more than once: those of the first numbers.

    Where several runs that are alike keep what they learn from in one place, ``shared``, that is all views.
    """
    if shared:
        return photos * (config.views or (1 if config.augment == "none" else 1 + config.epochs))
    if config.views:
        return photos * min(config.views, max(0, config.epochs - config.views))
    # Of photos that are mirrored by chance each may be shown as it is.
    return 0 if config.augment in ("crop", "mosaic") or config.epochs < 2 else photos


def _view(
    photos: PhotoList,
    image: NDArray[np.uint8],
    canvas: Canvas,
    augment: Augment,
    seed: int,
    turn: int,
    index: int,
) -> View:
    """Return what is shown of photo number ``index``, by itself or among others."""
    stream, number = derive_seed(seed, "align"), np.array([index])
    if augment == "mosaic":
        (draws,) = uniforms(stream, "mosaic", turn, number, TILES + MOSAIC_DRAWS)
        if draws[0] < _MOSAICS:
            others = [photos[int(draw * len(photos))].image for draw in draws[1:TILES]]
            return lay_mosaic([image, *others], canvas.size_px, draws[TILES:])
    (draws,) = uniforms(stream, "view", turn, number, DRAWS)
    return show(image, augment, draws)


def _load(photos: PhotoList, canvas: Canvas, config: AlignConfig, seed: int, place: tuple[int, int]) -> Shown:
    epoch, index = place
    turn = epoch % config.views if config.views else epoch
    photo = photos[index]
    view = _view(photos, photo.image, canvas, config.augment, seed, turn, index)
    pixels, placement = canvas.place(view.image)
    if config.views:
        number = turn * len(photos) + index
    else:
        # What no later epoch shows comes after what each does.
        number = index if view.whole else (1 + turn) * len(photos) + index
    asks = derive_seed(seed, "prompts", epoch, index)
    return Shown(number, photo.identifier, view.image, pixels, placement.scaled, asks)
