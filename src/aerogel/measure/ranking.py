"""Score a small training set fairly: what labels and augmentation give apart from its images (DD-Ranking).

Definitions of DD-Ranking (arXiv 2505.13300). Accuracies are shares from 0 to 1.
"""

from __future__ import annotations

from math import exp

from aerogel.errors import ConfigError, DataError, compose

__all__ = ["score_augmentation", "score_difference", "score_labels", "weigh_hard_labels", "weigh_random"]


def weigh_hard_labels(real_hard: float, synthetic_hard: float) -> float:
    """Return HLR, what is lost to training on all real data, both with hard labels; lower is better.

    Raises:
        DataError: an accuracy is no share.
    """
    return _share("real_hard", real_hard) - _share("synthetic_hard", synthetic_hard)


def weigh_random(synthetic: float, random: float) -> float:
    """Return IOR, what is won over as many real images picked by chance, with the same labels and training.

    Raises:
        DataError: an accuracy is no share.
    """
    return _share("synthetic", synthetic) - _share("random", random)


def score_labels(*, hlr: float, ior: float, weight: float = 0.5) -> float:
    """Return the label-robust score LRS in [0, 1], of alpha = w IOR - (1 - w) HLR; higher is better.

    Raises:
        ConfigError: ``weight`` is outside [0, 1].
        DataError: a difference is outside [-1, 1].
    """
    _weight(weight)
    return score_difference(weight * _difference("ior", ior) - (1.0 - weight) * _difference("hlr", hlr))


def score_augmentation(*, augmented: float, plain: float, weight: float = 0.5) -> float:
    """Return the augmentation-robust score ARS in [0, 1]; higher is better.

    ``augmented`` is IOR of students that were shown augmented views, ``plain`` of students that saw the
    images as they are; beta = w augmented + (1 - w) plain takes alpha's place in LRS.

    Raises:
        ConfigError: ``weight`` is outside [0, 1].
        DataError: a difference is outside [-1, 1].
    """
    _weight(weight)
    return score_difference(
        weight * _difference("augmented", augmented) + (1.0 - weight) * _difference("plain", plain)
    )


def score_difference(alpha: float) -> float:
    """Return (e^alpha - e^-1) / (e - e^-1): 0 at -1, 1 at 1, and 0.2689 where nothing is won or lost."""
    return (exp(alpha) - exp(-1.0)) / (exp(1.0) - exp(-1.0))


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise DataError(compose(f"{name} as a share from 0 to 1", repr(value), "divide percent by a hundred"))
    return value


def _difference(name: str, value: float) -> float:
    if not -1.0 <= value <= 1.0:
        raise DataError(
            compose(f"{name} as a difference of shares, from -1 to 1", repr(value), "divide percent by 100")
        )
    return value


def _weight(weight: float) -> None:
    if not 0.0 <= weight <= 1.0:
        raise ConfigError(compose("a weight from 0 to 1", repr(weight), "pass for example 0.5"))
