"""Problems of a source are told all at once, and at most twenty of them by name."""

from __future__ import annotations

import pytest

from aerogel.errors import DataError
from aerogel.zoo.records import SHOWN, Problems, describe_label, list_problems, note_empty


def test_without_problems_nothing_is_refused() -> None:
    Problems("photos").refuse("correct them")


def test_what_was_noted_is_refused_with_its_place_and_a_remedy() -> None:
    problems = Problems("photos")
    problems.add("a.jpg: no label")
    problems.add("b.jpg: no picture stored")
    with pytest.raises(
        DataError, match=r"every class in photos.*2 problems: a.jpg: no label; b.jpg"
    ) as caught:
        problems.refuse("correct these")
    assert "correct these" in str(caught.value)


@pytest.mark.parametrize(
    ("count", "start", "end"),
    [
        (1, "1 problem: p0", "p0"),
        (SHOWN, "20 problems: p0; p1", "; p19"),
        (23, "23 problems: p0", "; and 3 more"),
    ],
)
def test_the_first_are_named_and_the_rest_counted(count: int, start: str, end: str) -> None:
    told = list_problems([f"p{number}" for number in range(count)])
    assert told.startswith(start) and told.endswith(end)


def test_labels_and_classes_that_lead_nowhere_are_described() -> None:
    assert describe_label(None, 3) == "no label"
    assert describe_label("zebra", 3) == "label 'zebra' is not in the class list of 3"
    problems = Problems("photos")
    note_empty(problems, ("a", "b", "c"), [2, 0, 2], after_skipping=True)
    assert problems.found == ["class 'b' has no usable images left after skipping"]
    note_empty(problems, (), [], after_skipping=False)
    assert problems.found[1:] == ["no classes"]
