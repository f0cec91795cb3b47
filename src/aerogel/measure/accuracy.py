"""Measure classification accuracy with its uncertainty, and sum up repeated runs."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any

import torch

from aerogel.errors import ConfigError, DataError, compose
from aerogel.measure.results import Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence


def measure_accuracy(outputs: Any, labels: Any, *, top_k: int = 1, name: str = "accuracy") -> Measurement:
    """Measure the share of right answers in percent, with its Wilson 95% interval.

    ``outputs`` is either logits or probabilities, floating point [N, C], or predicted classes, integer [N];
    ``labels`` is integer [N]. Tensors on any device, arrays and lists are taken. An answer is right when the
    true class is among the ``top_k`` highest logits; among equal logits the lower class number ranks first,
    as in argmax. The spread is half the interval's width; the interval itself, which is not centred on the
    value, is in the note.

    Raises:
        DataError: empty, mismatched or wrongly typed input, a label outside the classes, NaN as a logit.
        ConfigError: ``top_k`` outside 1 to C - 1, or above 1 with predicted classes.
    """
    scores, truth = torch.as_tensor(outputs).detach().cpu(), torch.as_tensor(labels).detach().cpu()
    _check_pairs(scores, truth)
    if scores.ndim == 1:
        if top_k != 1:
            raise ConfigError(compose("logits [N, C] for top_k > 1", "predicted classes", "pass the logits"))
        correct = int((scores == truth).sum())
    else:
        if not 1 <= top_k <= max(1, scores.shape[1] - 1):
            raise ConfigError(
                compose(
                    f"top_k from 1 to {scores.shape[1] - 1}", repr(top_k), "ask for fewer than all classes"
                )
            )
        correct = _count_hits(scores, truth, top_k)
    total = len(truth)
    low, high = wilson_interval(correct, total)
    return Measurement(
        name if top_k == 1 else f"{name} (top {top_k})",
        100.0 * correct / total,
        "%",
        50.0 * (high - low),
        "95% CI half-width",
        total,
        f"Wilson 95% interval {100 * low:.2f}–{100 * high:.2f} %",
    )


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share, both ends in [0, 1].

    Keeps its coverage near 0 and 1 and at small counts, where the textbook ± 1.96 standard errors fails.
    Implements E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927).

    Raises:
        DataError: counts that are no share.
        ConfigError: a confidence outside (0, 1).
    """
    if not (total >= 1 and 0 <= correct <= total):
        raise DataError(
            compose("0 <= correct <= total, total >= 1", f"{correct} of {total}", "check the counts")
        )
    if not 0 < confidence < 1:
        raise ConfigError(compose("a confidence between 0 and 1", repr(confidence), "pass for example 0.95"))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # The ends are exact at 0 and total; rounding must not leave them an ulp inside.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return low, high


def mean_std(values: Sequence[float], *, name: str, unit: str, note: str = "") -> Measurement:
    """Sum up repeated runs: the mean and the sample standard deviation (n - 1); one run has no spread.

    Raises:
        DataError: no value, or one that is not finite.
    """
    each = [Measurement(name, value, unit).value for value in values]
    if not each:
        raise DataError(compose(f"at least one value of {name!r}", "none", "pass the results of the runs"))
    if len(each) == 1:
        return Measurement(name, each[0], unit, samples=1, note=note)
    return Measurement(name, fmean(each), unit, stdev(each), "std", len(each), note)


def _count_hits(scores: torch.Tensor, truth: torch.Tensor, top_k: int) -> int:
    own = scores.gather(1, truth.long()[:, None])
    earlier = torch.arange(scores.shape[1]) < truth[:, None]
    ahead = (scores > own) | ((scores == own) & earlier)
    return int((ahead.sum(dim=1) < top_k).sum())


def _check_pairs(scores: torch.Tensor, truth: torch.Tensor) -> None:
    if truth.ndim != 1 or truth.is_floating_point() or truth.is_complex() or truth.dtype == torch.bool:
        raise DataError(
            compose(
                "integer labels [N]", f"{truth.dtype} {list(truth.shape)}", "pass one class number per image"
            )
        )
    logits = scores.ndim == 2 and scores.is_floating_point()
    classes = scores.ndim == 1 and not (scores.is_floating_point() or scores.is_complex())
    if not (logits or (classes and scores.dtype != torch.bool)):
        raise DataError(
            compose(
                "floating-point logits [N, C] or integer classes [N]",
                f"{scores.dtype} {list(scores.shape)}",
                "pass the model's logits or their argmax",
            )
        )
    if len(scores) != len(truth) or len(truth) == 0:
        raise DataError(
            compose(
                "as many outputs as labels, at least one",
                f"{len(scores)} and {len(truth)}",
                "check the split",
            )
        )
    if not logits:
        return
    if torch.isnan(scores).any():
        raise DataError(compose("logits that are numbers", "NaN", "check the model and its input"))
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise DataError(
            compose(
                f"labels from 0 to {scores.shape[1] - 1}",
                f"{int(truth.min())} to {int(truth.max())}",
                "use the class list of the model",
            )
        )
