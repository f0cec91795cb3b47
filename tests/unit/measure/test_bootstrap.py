from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.measure.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
)


def photos(seed: int, images: int = 40, objects: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores of objects that share their image's difficulty, around 0.5, and their images' numbers."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(0.5, 0.1, images).repeat(objects)
    return shared + generator.normal(0, 0.02, images * objects), np.arange(images).repeat(objects)


def test_the_mean_is_the_plain_mean_or_that_of_the_groups() -> None:
    values, groups = [1.0, 2.0, 3.0, 10.0], ["a", "a", "a", "b"]
    assert bootstrap_mean(values, groups).value == 4.0
    assert bootstrap_mean(values, groups, weight="group").value == 6.0
    found = bootstrap_mean(values, groups)
    assert (found.samples, found.groups) == (4, 2)
    assert found.low <= found.value <= found.high


def test_an_interval_is_that_of_a_plain_loop() -> None:
    from aerogel.core.randomness import uniforms

    values, groups = photos(3, images=6, objects=2)
    draws = uniforms(5, "bootstrap", 0, np.arange(300), 6)
    means = []
    for row in draws:
        chosen = [value for draw in row for value in values[groups == int(draw * 6)]]
        means.append(np.mean(chosen))
    found = bootstrap_mean(values, groups, resamples=300, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)


def test_grouped_intervals_cover_and_ungrouped_ones_do_not() -> None:
    """Of 95 % intervals around 0.5, about as many hold it; with objects taken apart, far fewer."""
    grouped = apart = 0
    for seed in range(200):
        values, groups = photos(seed)
        grouped += holds(bootstrap_mean(values, groups, resamples=400, seed=seed), 0.5)
        apart += holds(bootstrap_mean(values, resamples=400, seed=seed), 0.5)
    assert 0.90 <= grouped / 200 <= 0.99
    assert apart / 200 < 0.75


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def test_pairs_tell_a_small_difference_that_apart_drowns() -> None:
    values, groups = photos(0)
    better = values + 0.01 + np.random.default_rng(1).normal(0, 0.005, len(values))
    paired = bootstrap_difference(better, values, groups)
    assert paired.excludes_zero
    assert paired.value == pytest.approx(float(np.mean(better) - np.mean(values)))
    assert 0 < paired.low < 0.01 < paired.high + 0.002
    ours, theirs = bootstrap_mean(better, groups), bootstrap_mean(values, groups)
    assert ours.low < theirs.high
    assert not bootstrap_difference(values, values, groups).excludes_zero
    reverse = bootstrap_difference(values, better, groups)
    assert (reverse.low, reverse.high) == pytest.approx((-paired.high, -paired.low))


def test_the_kept_share_is_of_the_means() -> None:
    values, groups = photos(2)
    kept = bootstrap_ratio(0.9 * values, values, groups)
    assert (kept.value, kept.low, kept.high) == pytest.approx((0.9, 0.9, 0.9))
    other = bootstrap_ratio(values[::-1].copy(), values, groups)
    assert other.value == pytest.approx(1.0)
    assert other.low < 1.0 < other.high


def test_draws_depend_on_the_seed_and_not_on_parts_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = photos(4)
    found = bootstrap_mean(values, groups)
    assert bootstrap_mean(values, groups) == found
    assert bootstrap_mean(values, groups, seed=1) != found
    turned = bootstrap_mean(values[::-1].copy(), groups[::-1].copy())
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=1e-12)
    monkeypatch.setattr("aerogel.measure.bootstrap._NUMBERS_AT_ONCE", 100)
    assert bootstrap_mean(values, groups) == found


def test_an_interval_becomes_a_measurement() -> None:
    interval = Interval(0.5, 0.4, 0.7, 0.95, 12, 3)
    found = interval.to_measurement("mIoU")
    assert found.text == "50.00 % ± 15.00 %"
    assert (found.spread_kind, found.samples) == ("95% CI half-width", 12)
    assert found.note == "95% interval 40.00 to 70.00 %; 3 images"
    assert interval.to_measurement("IoU", "").value == 0.5
    assert interval.to_dict()["groups"] == 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"values": []}, DataError, "at least one"),
        ({"values": [1.0, float("nan")]}, DataError, "NaN"),
        ({"values": ["a", "b"]}, DataError, "numbers"),
        ({"values": [1.0, 2.0], "groups": [1]}, DataError, "a group for each"),
        ({"values": [1.0, 2.0], "groups": [1, 1]}, DataError, "at least two groups"),
        ({"values": [1.0, 2.0], "confidence": 1.0}, ConfigError, "confidence"),
        ({"values": [1.0, 2.0], "resamples": 10}, ConfigError, "resamples"),
        ({"values": [1.0, 2.0], "weight": "image"}, ConfigError, "weight"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bootstrap_mean(**arguments)


def test_unlike_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="a value of both"):
        bootstrap_difference([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="positive mean"):
        bootstrap_ratio([1.0, 2.0], [0.0, 1.0])
