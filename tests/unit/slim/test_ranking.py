"""What stays is what scores highest, to the last place."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError, DataError
from aerogel.slim.ranking import NORMALIZERS, Normalizer, choose, choose_among, normalize, read_scores

SCORES = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=12).map(np.array)


@given(SCORES, st.data())
def test_choice_is_by_score_and_index_only_where_equal(scores: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    kept = choose(scores, count)
    assert list(kept) == sorted(set(kept)) and len(kept) == count
    for gone in set(range(len(scores))).difference(kept):
        assert all((scores[stays], -stays) > (scores[gone], -gone) for stays in kept)


@given(st.permutations(range(8)), st.integers(1, 8))
def test_renumbered_channels_are_chosen_alike(order: list[int], count: int) -> None:
    scores = np.array([3.0, 0.5, 2.0, 9.0, 4.0, 1.0, 7.0, 0.1])
    plain = {order.index(index) for index in choose(scores, count)}
    assert set(choose(scores[order], count)) == plain


def test_counts_that_do_not_fit_are_refused() -> None:
    for count in (0, 4):
        with pytest.raises(ConfigError, match="1 to 3 channels"):
            choose(np.ones(3), count)


def test_normalizers() -> None:
    scores = np.array([1.0, 2.0, 3.0, 6.0])
    assert normalize(scores, "none").tolist() == scores.tolist()
    assert normalize(scores, "mean").tolist() == (scores / 3).tolist()
    assert normalize(scores, "max").tolist() == (scores / 6).tolist()
    assert normalize(scores, "sum").tolist() == (scores / 12).tolist()
    assert normalize(scores, "gaussian") == pytest.approx((scores - 3) / scores.std())
    assert normalize(scores, "standardization") == pytest.approx((scores - 1) / 5)
    with pytest.raises(ConfigError, match="one of none, mean, max"):
        normalize(scores, "median")  # type: ignore[arg-type]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_equal_scores_normalise_to_finite_numbers(normalizer: Normalizer) -> None:
    assert get_args(Normalizer) == NORMALIZERS
    for scores in (np.zeros(3), np.ones(3), np.array([5.0])):
        assert np.isfinite(normalize(scores, normalizer)).all()


@given(st.lists(SCORES, min_size=1, max_size=4), st.sampled_from(NORMALIZERS), st.integers(1, 3), st.data())
def test_global_choice(arrays: list[Any], normalizer: Normalizer, multiple: int, data: st.DataObject) -> None:
    groups = {str(index): values for index, values in enumerate(arrays) if len(values) >= multiple}
    if not groups:
        return
    most = sum(len(values) // multiple for values in groups.values())
    places = data.draw(st.integers(len(groups), most)) * multiple
    kept = choose_among(groups, places, normalizer=normalizer, multiple=multiple)
    assert sum(map(len, kept.values())) == places
    for name, values in groups.items():
        assert kept[name] == choose(values, len(kept[name]))
        assert len(kept[name]) % multiple == 0 or len(kept[name]) == len(values)


@given(st.lists(SCORES, min_size=2, max_size=4), st.sampled_from(NORMALIZERS), st.data())
def test_nothing_that_went_was_better_than_what_stayed(
    arrays: list[Any], normalizer: Normalizer, data: st.DataObject
) -> None:
    groups = {str(index): values for index, values in enumerate(arrays)}
    places = data.draw(st.integers(len(groups), sum(map(len, arrays))))
    kept = choose_among(groups, places, normalizer=normalizer)
    normal = {name: normalize(values, normalizer) for name, values in groups.items()}
    # The last channel of a group stays whatever its score.
    stayed = [normal[name][index] for name in kept if len(kept[name]) > 1 for index in kept[name]]
    gone = [normal[n][i] for n, v in groups.items() for i in set(range(len(v))).difference(kept[n])]
    assert min(stayed, default=np.inf) >= max(gone, default=-np.inf)


def test_rounding_drops_the_least_important_not_the_first() -> None:
    groups = {"a": np.array([1.0, 2.0, 9.0, 8.0, 7.0]), "b": np.array([1.0, 9.0, 2.0, 1.0])}
    assert choose_among(groups, 6, normalizer="max", multiple=2) == {"a": (1, 2, 3, 4), "b": (1, 2)}
    assert choose_among(groups, 5, normalizer="max", multiple=2) == {"a": (2, 3), "b": (1, 2)}


def test_equal_packs_go_by_their_scores_as_given() -> None:
    groups = {"a": np.array([1.0, 0.5]), "b": np.array([4.0, 2.0])}
    assert choose_among(groups, 3, normalizer="max") == {"a": (0,), "b": (0, 1)}


def test_scores_of_one_unit_are_compared_as_they_are() -> None:
    groups = {"a": np.array([9.0, 8.0, 7.0]), "b": np.array([0.3, 0.2, 0.1])}
    assert choose_among(groups, 4, normalizer="none") == {"a": (0, 1, 2), "b": (0,)}


def test_a_limit_holds() -> None:
    groups = {"a": np.array([9.0, 8.0, 7.0, 6.0]), "b": np.array([1.0, 1.0, 1.0, 0.0])}
    assert {len(each) for each in choose_among(groups, 6, normalizer="sum", limit=3).values()} == {3}
    with pytest.raises(ConfigError, match="2 to 4 places"):
        choose_among(groups, 6, limit=2)


def test_places_that_do_not_fit_are_refused() -> None:
    groups = {"a": np.ones(4), "b": np.ones(4)}
    with pytest.raises(ConfigError, match="2 to 8 places for 2 groups"):
        choose_among(groups, 1)
    with pytest.raises(ConfigError, match="in multiples of 3"):
        choose_among(groups, 3, multiple=3)


def test_scores_are_read_from_what_holds_numbers() -> None:
    for scores in ([1, 2], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0], dtype=torch.bfloat16)):
        assert read_scores("embedding", scores, 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "scores", [[1.0], [[1.0, 2.0]], [1.0, float("nan")], [1.0, -2.0], [1.0, float("inf")]]
)
def test_scores_that_cannot_rank_are_refused(scores: Any) -> None:
    with pytest.raises(DataError, match=r"2 finite scores from 0 up for blocks\.0\.mlp"):
        read_scores("blocks.0.mlp", scores, 2)
