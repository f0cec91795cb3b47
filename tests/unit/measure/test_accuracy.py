from __future__ import annotations

from math import comb, isclose

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError, DataError
from aerogel.measure.accuracy import mean_std, measure_accuracy, wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # R: prop.test(81, 263, correct = FALSE), prop.test(15, 148, correct = FALSE); the examples of
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_solves_its_equation_and_is_symmetric(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson_interval(correct, total)
    share = correct / total
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert isclose((share - end) ** 2, 1.959963984540054**2 * end * (1 - end) / total, rel_tol=1e-6)
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_covers_on_average() -> None:
    """Coverage by summing the binomial distribution, averaged over shares: close to what is promised."""
    total = 40
    held = 0.0
    shares = np.linspace(0.02, 0.98, 97)
    for share in shares:
        for correct in range(total + 1):
            low, high = wilson_interval(correct, total)
            if low <= share <= high:
                held += comb(total, correct) * share**correct * (1 - share) ** (total - correct)
    assert 0.945 < held / len(shares) < 0.96


def test_logits_and_their_argmax_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 7, generator=generator).bfloat16()  # coarse: many ties
    labels = torch.randint(7, (200,), generator=generator)
    assert (logits.topk(2, dim=1).values.diff(dim=1) == 0).any()
    by_logits = measure_accuracy(logits, labels)
    assert by_logits == measure_accuracy(logits.argmax(1), labels)
    assert by_logits == measure_accuracy(logits.argmax(1).tolist(), labels.numpy())
    assert by_logits.value == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())


def test_value_interval_and_count() -> None:
    measured = measure_accuracy(torch.tensor([0] * 263), torch.tensor([0] * 81 + [1] * 182), name="student")
    assert measured.value == pytest.approx(100 * 81 / 263)
    assert (measured.unit, measured.samples, measured.name) == ("%", 263, "student")
    assert measured.spread == pytest.approx((36.62 - 25.53) / 2, abs=5e-3)
    assert measured.note == "Wilson 95% interval 25.53–36.62 %"


def test_top_k_counts_the_k_best() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [0.0, 3.0, 1.0, 2.0]])
    labels = torch.tensor([1, 1, 1])
    assert [measure_accuracy(logits, labels, top_k=k).value for k in (1, 2, 3)] == pytest.approx(
        [100 / 3, 200 / 3, 100]
    )
    assert measure_accuracy(logits, labels, top_k=2).name == "accuracy (top 2)"


@pytest.mark.parametrize("k", [1, 2, 3])
def test_equal_logits_give_no_more_than_chance(k: int) -> None:
    labels = torch.arange(4).repeat(5)
    assert measure_accuracy(torch.zeros(20, 4), labels, top_k=k).value == 25 * k


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(2, 3), torch.tensor([0, 3])),
        (torch.zeros(2, 3), torch.tensor([0, -1])),
        (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long)),
        (torch.tensor([[0.0, float("nan")]]), torch.zeros(1, dtype=torch.long)),
        (torch.tensor([True]), torch.zeros(1, dtype=torch.long)),
    ],
)
def test_wrong_input_is_refused(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="what to do"):
        measure_accuracy(outputs, labels)


def test_wrong_settings_are_refused() -> None:
    labels = torch.tensor([0, 1])
    for k in (0, 2):
        with pytest.raises(ConfigError, match="top_k"):
            measure_accuracy(torch.zeros(2, 2), labels, top_k=k)
    with pytest.raises(ConfigError, match="logits"):
        measure_accuracy(labels, labels, top_k=2)
    with pytest.raises(ConfigError, match="confidence"):
        wilson_interval(1, 2, confidence=95)
    for counts in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(DataError):
            wilson_interval(*counts)


def test_runs_are_summed_up_with_the_sample_deviation() -> None:
    measured = mean_std([90.0, 92.0, 94.0], name="accuracy", unit="%", note="3 seeds")
    assert (measured.value, measured.spread, measured.spread_kind, measured.samples) == (92.0, 2.0, "std", 3)
    assert measured.note == "3 seeds"
    alone = mean_std([90.0], name="accuracy", unit="%")
    assert (alone.value, alone.spread, alone.samples) == (90.0, None, 1)
    with pytest.raises(DataError, match="none"):
        mean_std([], name="accuracy", unit="%")
    with pytest.raises(DataError, match="nan"):
        mean_std([1.0, float("nan")], name="accuracy", unit="%")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_mean_and_deviation_agree_with_numpy(values: list[float]) -> None:
    measured = mean_std(values, name="x", unit="ms")
    assert measured.value == pytest.approx(float(np.mean(values)), abs=1e-6)
    assert measured.spread == pytest.approx(float(np.std(values, ddof=1)), abs=1e-6)
