"""Choose the channels that stay, from a score for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from aerogel.errors import ConfigError, DataError, compose

Normalizer = Literal["none", "mean", "max", "sum", "gaussian", "standardization"]
NORMALIZERS: tuple[Normalizer, ...] = ("none", "mean", "max", "sum", "gaussian", "standardization")

_EPSILON = 1e-8
_Floats = npt.NDArray[np.float64]


def read_scores(name: str, scores: object, size: int) -> _Floats:
    """Return the scores of one group as an array [size], from a list, an array or a tensor on any device.

    Raises:
        DataError: they are not as many finite numbers, none below 0.
    """
    plain = getattr(scores, "tolist", None)
    values = np.asarray(plain() if callable(plain) else scores, dtype=np.float64)
    if values.shape != (size,) or not np.isfinite(values).all() or (values < 0).any():
        got = f"{values.shape}" if values.shape != (size,) else "negative or infinite numbers"
        raise DataError(
            compose(f"{size} finite scores from 0 up for {name}, one for each channel", got, "score it anew")
        )
    return values


def choose(scores: _Floats, count: int) -> tuple[int, ...]:
    """Return the ``count`` channels of the highest scores, in ascending order.

    Where scores are exactly equal, the lower index stays.

    Raises:
        ConfigError: there are fewer channels, or none is asked for.
    """
    _require_count(count, len(scores))
    return tuple(sorted(int(index) for index in _descending(scores)[:count]))


def normalize(scores: _Floats, normalizer: Normalizer) -> _Floats:
    """Return scores that can be compared between groups.

    "none" leaves them as they are, for scores that are losses of one thing in all groups; "mean", "max" and
    "sum" divide by that; "gaussian" is (I - mean) / (std + 1e-8); "standardization" is
    (I - min) / (max - min + 1e-8). (Section 3.2 of arXiv 2312.05284, whose last formula subtracts the
    maximum: the ranking is the same.) A group whose scores are all 0 stays so.
    """
    if normalizer == "none":
        return scores
    if normalizer == "gaussian":
        return np.asarray((scores - scores.mean()) / (scores.std() + _EPSILON))
    if normalizer == "standardization":
        return np.asarray((scores - scores.min()) / (scores.max() - scores.min() + _EPSILON))
    divisors = {"mean": scores.mean(), "max": scores.max(), "sum": scores.sum()}
    if normalizer not in divisors:
        raise ConfigError(
            compose(f"one of {', '.join(NORMALIZERS)}", repr(normalizer), "choose one of these")
        )
    return np.asarray(scores / divisors[normalizer]) if scores.any() else scores


def choose_among(
    scores: Mapping[str, _Floats],
    total: int,
    *,
    normalizer: Normalizer = "gaussian",
    multiple: int = 1,
    limit: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return the channels that stay in each of several groups that compete for ``total`` places.

    Within a group channels stay by score; between groups by normalised score. Each group keeps a multiple of
    ``multiple``, at least one and at most ``limit`` channels: its channels enter in packs of that many, best
    first, and a pack counts as its mean. So the places are used up to less than one multiple, and what
    rounding drops is always the least important. Equal packs go by their scores as given, then by the order
    of the groups. (Global ranking, section 3.2 of arXiv 2312.05284.)

    Raises:
        ConfigError: there are too few or too many places for the groups.
    """
    if total == sum(map(len, scores.values())) and limit is None:
        return {name: tuple(range(len(values))) for name, values in scores.items()}
    orders = {name: _descending(values) for name, values in scores.items()}
    sizes = {name: min(len(values), limit or len(values)) // multiple for name, values in scores.items()}
    places = total // multiple
    if min(sizes.values(), default=0) < 1 or not len(scores) <= places <= sum(sizes.values()):
        raise ConfigError(
            compose(
                f"{len(scores) * multiple} to {sum(sizes.values()) * multiple} places for {len(scores)} "
                f"groups in multiples of {multiple}",
                f"{total}",
                "choose other widths",
            )
        )
    packs: list[tuple[float, float, int, int, str]] = []
    for position, (name, values) in enumerate(scores.items()):
        ordered = orders[name][: sizes[name] * multiple]
        normal = normalize(values, normalizer)[ordered].reshape(-1, multiple)
        given = values[ordered].reshape(-1, multiple)
        for pack in range(1, sizes[name]):
            key = (-math.fsum(normal[pack]), -math.fsum(given[pack]), position, pack)
            packs.append((*key, name))
    counts = dict.fromkeys(scores, 1)
    # Packs of a group come in descending order, so those that are taken are always its first.
    for *_, name in sorted(packs)[: places - len(scores)]:
        counts[name] += 1
    return {name: choose(values, counts[name] * multiple) for name, values in scores.items()}


def _descending(scores: _Floats) -> npt.NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")


def _require_count(count: int, size: int) -> None:
    if not 1 <= count <= size:
        raise ConfigError(compose(f"1 to {size} channels to keep", f"{count}", "choose another width"))
