"""The scores are DD-Ranking's, at its ends and in between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError, DataError
from aerogel.measure import (
    score_augmentation,
    score_difference,
    score_labels,
    weigh_hard_labels,
    weigh_random,
)

SHARES = st.floats(0.0, 1.0)


def test_the_scores_of_one_example() -> None:
    hlr, ior = weigh_hard_labels(0.90, 0.30), weigh_random(0.62, 0.50)
    assert (hlr, ior) == (pytest.approx(0.60), pytest.approx(0.12))
    alpha = 0.5 * 0.12 - 0.5 * 0.60
    expected = (math.e**alpha - 1 / math.e) / (math.e - 1 / math.e)
    assert score_labels(hlr=hlr, ior=ior) == pytest.approx(expected)
    assert score_labels(hlr=hlr, ior=ior, weight=1.0) == pytest.approx(score_difference(0.12))
    beta = 0.5 * 0.12 + 0.5 * 0.04
    assert score_augmentation(augmented=0.12, plain=0.04) == pytest.approx(score_difference(beta))


def test_the_ends() -> None:
    assert score_labels(hlr=1.0, ior=-1.0) == pytest.approx(0.0)
    assert score_labels(hlr=-1.0, ior=1.0) == pytest.approx(1.0)
    assert score_difference(0.0) == pytest.approx(0.26894, abs=1e-5)


@given(SHARES, SHARES, SHARES, SHARES, SHARES)
def test_better_images_score_no_lower(real: float, hard: float, own: float, random: float, w: float) -> None:
    hlr, ior = weigh_hard_labels(real, hard), weigh_random(own, random)
    score = score_labels(hlr=hlr, ior=ior, weight=w)
    assert -1e-12 <= score <= 1.0 + 1e-12
    better = score_labels(hlr=weigh_hard_labels(real, 1.0), ior=weigh_random(1.0, random), weight=w)
    assert better >= score


def test_percent_and_weights_outside_are_refused() -> None:
    with pytest.raises(DataError, match="divide percent"):
        weigh_random(62.0, 50.0)
    with pytest.raises(DataError, match="real_hard"):
        weigh_hard_labels(math.nan, 0.5)
    with pytest.raises(DataError, match="ior"):
        score_labels(hlr=0.1, ior=12.0)
    with pytest.raises(ConfigError, match="weight"):
        score_labels(hlr=0.1, ior=0.1, weight=1.5)
    with pytest.raises(ConfigError, match="weight"):
        score_augmentation(augmented=0.1, plain=0.1, weight=-0.5)
