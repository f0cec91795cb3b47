from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import DataError
from aerogel.zoo.classes import align_classes, name_classes


def test_texts_are_sorted_and_numbers_counted() -> None:
    assert name_classes(["b", "a", None, "b"], "here") == ("a", "b")
    assert name_classes([3, 0, None], "here") == ("0", "1", "2", "3")
    assert name_classes([], "here") == ()


def test_refuses_numbers_that_are_no_classes() -> None:
    with pytest.raises(DataError, match="labels up to 20240131"):
        name_classes([20240131], "here")


@given(st.lists(st.text(min_size=1), unique=True, min_size=1), st.randoms())
def test_the_same_names_in_another_order_match_by_name(names: list[str], random: object) -> None:
    wanted = list(names)
    random.shuffle(wanted)  # type: ignore[attr-defined]
    order = align_classes(names, wanted, "here")
    assert [wanted[place] for place in order] == names


def test_new_names_rename_in_order() -> None:
    assert align_classes(["n01", "n02"], ["tench", "shark"], "here") == (0, 1)


@pytest.mark.parametrize("wanted", [["cat"], ["cat", "bird"], ["cat", "dog", "bird"], ["cat", "cat"], ["x"]])
def test_refuses_lists_that_overlap_or_differ_in_length(wanted: list[str]) -> None:
    with pytest.raises(DataError, match="the 2 classes of here"):
        align_classes(["cat", "dog"], wanted, "here")
