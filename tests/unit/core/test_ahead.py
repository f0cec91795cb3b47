"""Work is prepared ahead, in order, within bounds, and its errors come where its results would."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from aerogel.core import ahead
from aerogel.core.ahead import read_ahead


def test_results_come_in_order_whatever_takes_longest() -> None:
    def make(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item * item

    assert list(read_ahead(make, range(20))) == [item * item for item in range(20)]
    assert list(read_ahead(make, [])) == []


def test_items_are_taken_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "count_cores", lambda: 2)
    taken: list[int] = []
    threads: set[int] = set()

    def draw() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            threads.add(threading.get_ident())
            yield item

    found = read_ahead(lambda item: item, draw())
    assert not taken
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    assert len(taken) == 4 + 3
    assert threads == {threading.get_ident()}


def test_the_next_items_are_made_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "count_cores", lambda: 2)
    made = [threading.Event() for _ in range(5)]
    found = read_ahead(lambda item: made[item].set(), range(5))
    next(found)
    assert all(event.wait(5) for event in made)


def test_an_error_comes_after_the_results_before_it() -> None:
    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    found = read_ahead(make, range(10))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_nothing_goes_on_once_it_is_closed() -> None:
    before = threading.active_count()
    found = read_ahead(lambda item: item, iter(range(1000)))
    next(found)
    assert threading.active_count() > before
    found.close()
    assert threading.active_count() == before
