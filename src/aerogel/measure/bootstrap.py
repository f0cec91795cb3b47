"""Put intervals around means and differences of values that come in groups, such as objects of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aerogel.core.randomness import uniforms
from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure.results import Measurement

Weight = Literal["value", "group"]
_NUMBERS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Interval:
    """Hold an estimate and the ends of its confidence interval, which need not be centred on it.

    ``samples`` counts the values and ``groups`` what was drawn again: the images, where values are objects.
    """

    value: float
    low: float
    high: float
    confidence: float
    samples: int
    groups: int

    @property
    def excludes_zero(self) -> bool:
        """Tell whether zero lies outside, so that the sign of a difference is more than chance."""
        return self.low > 0 or self.high < 0

    def to_measurement(self, name: str, unit: str = "%", *, groups: str = "images") -> Measurement:
        """Return a measurement: the spread is half the interval's width, the interval is in the note.

        Values are shares; with the unit "%" they are multiplied by 100. ``groups`` is the word for what was
        drawn again.
        """
        scale = 100.0 if unit == "%" else 1.0
        low, high = scale * self.low, scale * self.high
        level = f"{100 * self.confidence:g}%"
        suffix = f" {unit}" if unit else ""
        digits = 2 if unit == "%" else 4
        return Measurement(
            name,
            scale * self.value,
            unit,
            (high - low) / 2,
            f"{level} CI half-width",
            self.samples,
            f"{level} interval {low:.{digits}f} to {high:.{digits}f}{suffix}; {self.groups:,} {groups}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, every field present."""
        return asdict(self)


def bootstrap_mean(
    values: Any,
    groups: Any = None,
    *,
    weight: Weight = "value",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Estimate the mean of ``values`` [N] and its percentile interval, drawing whole groups again.

    ``groups`` [N] names the group of each value, for example its image; None makes each value a group of its
    own. Values of one group are not independent, so a group is drawn with all its values or not at all: an
    interval that treats 100 objects of one photo as 100 observations is far too narrow. ``weight`` says what
    counts alike: every "value", or every "group" (the mean of the groups' means). The draws depend on
    ``seed``, the number of groups and nothing else. With fewer than about 20 groups percentile intervals are
    somewhat too narrow. Implements the cluster bootstrap, Davison and Hinkley, "Bootstrap Methods and their
    Application" (1997), section 3.8.

    Raises:
        DataError: no values, values that are not finite, groups of another length, fewer than two groups.
        ConfigError: a confidence outside (0, 1) or fewer than 100 resamples.
    """
    each = _read_values(values, "values")
    sums, counts = _sum_groups(each, _read_groups(groups, len(each)), weight)
    totals, sizes = _resample(np.stack([sums, counts]), confidence, resamples, seed)
    return _interval(sums.sum() / counts.sum(), totals / sizes, confidence, len(each), len(sums))


def bootstrap_difference(
    first: Any,
    second: Any,
    groups: Any = None,
    *,
    weight: Weight = "value",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Estimate how far the mean of ``first`` lies above that of ``second``, both [N] for the same objects.

    Paired: the same groups are drawn for both, so what makes an object hard for either cancels out, and a
    difference far smaller than either's own interval can be told from chance. The other arguments are those
    of :func:`bootstrap_mean`.

    Raises:
        DataError: as in :func:`bootstrap_mean`, or values of different lengths.
        ConfigError: as in :func:`bootstrap_mean`.
    """
    ours, theirs = _read_twins(first, second)
    return bootstrap_mean(
        ours - theirs, groups, weight=weight, confidence=confidence, resamples=resamples, seed=seed
    )


def bootstrap_ratio(
    first: Any,
    second: Any,
    groups: Any = None,
    *,
    weight: Weight = "value",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Estimate the mean of ``first`` as a share of that of ``second``, both [N] for the same objects.

    What a small model keeps of its teacher's quality, for example. Paired as in
    :func:`bootstrap_difference`.

    Raises:
        DataError: as in :func:`bootstrap_difference`, or means of ``second`` that are not positive.
        ConfigError: as in :func:`bootstrap_mean`.
    """
    ours, theirs = _read_twins(first, second)
    named = _read_groups(groups, len(ours))
    above, below = _sum_groups(ours, named, weight)[0], _sum_groups(theirs, named, weight)[0]
    totals, parts = _resample(np.stack([above, below]), confidence, resamples, seed)
    if below.sum() <= 0 or parts.min() <= 0:
        remedy = "give the difference instead"
        raise DataError(compose("a positive mean to take a share of", "zero or less", remedy))
    return _interval(above.sum() / below.sum(), totals / parts, confidence, len(ours), len(above))


def _interval(
    value: float, draws: NDArray[np.float64], confidence: float, samples: int, groups: int
) -> Interval:
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(value), float(low), float(high), confidence, samples, groups)


def _sum_groups(
    values: NDArray[np.float64], groups: NDArray[np.int64], weight: Weight
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each group's sum and count; where groups count alike, its mean and one."""
    if weight not in ("value", "group"):
        raise ConfigError(compose("the weight 'value' or 'group'", repr(weight), "pass one of them"))
    sums = np.bincount(groups, weights=values).astype(np.float64)
    counts = np.bincount(groups).astype(np.float64)
    return (sums, counts) if weight == "value" else (sums / counts, np.ones_like(counts))


def _resample(rows: NDArray[np.float64], confidence: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """Sum the columns of ``rows`` [R, G] over draws of G columns each; the result is [R, resamples]."""
    if not 0 < confidence < 1:
        raise ConfigError(compose("a confidence between 0 and 1", repr(confidence), "pass for example 0.95"))
    if resamples < 100:
        raise ConfigError(compose("at least 100 resamples", repr(resamples), "pass for example 2000"))
    groups = rows.shape[1]
    if groups < 2:
        raise DataError(
            compose(
                "at least two groups to draw from", str(groups), "evaluate more images, or give no interval"
            )
        )
    found = np.empty((len(rows), resamples))
    step = max(1, _NUMBERS_AT_ONCE // groups)
    for start in range(0, resamples, step):
        numbers = np.arange(start, min(start + step, resamples), dtype=np.int64)
        draws = uniforms(seed, "bootstrap", 0, numbers, groups)
        # The product may round up to the number of groups.
        chosen = np.minimum((draws * groups).astype(np.int64), groups - 1)
        found[:, numbers] = rows[:, chosen].sum(axis=2)
    return found


def _read_twins(first: Any, second: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = _read_values(first, "first values"), _read_values(second, "second values")
    if len(ours) != len(theirs):
        raise DataError(
            compose(
                "a value of both for each object",
                f"{len(ours)} and {len(theirs)} values",
                "evaluate both on the same objects, in the same order",
            )
        )
    return ours, theirs


def _read_values(values: Any, what: str) -> NDArray[np.float64]:
    try:
        given = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(compose(f"numbers as {what}", str(error), "pass a vector of numbers")) from error
    if given.ndim != 1 or not given.size or not np.isfinite(given).all():
        got = f"shape {list(given.shape)}" if given.ndim != 1 or not given.size else "NaN or infinity"
        raise DataError(compose(f"a vector of finite {what}, at least one", got, "check what measured them"))
    return given


def _read_groups(groups: Sequence[Any] | NDArray[Any] | None, count: int) -> NDArray[np.int64]:
    """Number the groups in the order of their names, so that the order of the values does not matter."""
    if groups is None:
        return np.arange(count, dtype=np.int64)
    names = np.asarray(groups)
    if names.shape != (count,):
        raise DataError(
            compose(
                f"a group for each of {count} values", f"shape {list(names.shape)}", "name each value's image"
            )
        )
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
