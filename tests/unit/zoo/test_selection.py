from __future__ import annotations

from collections.abc import Callable

import pytest

from aerogel.errors import ConfigError, DataError
from aerogel.zoo.decode import PictureError
from aerogel.zoo.selection import OTHER_FILE, Skipped, select_usable, summarise

NAMES = tuple(f"{number:02}.jpg" for number in range(20))


def refusing(*bad: int, seen: list[int] | None = None) -> Callable[[int], None]:
    def check(number: int) -> None:
        if seen is not None:
            seen.append(number)
        if number in bad:
            raise PictureError("corrupt")

    return check


def test_all_usable_ones_in_order() -> None:
    chosen, skipped = select_usable(NAMES, refusing(3, 7), limit=None, seed=None, where="here")
    assert chosen == tuple(number for number in range(20) if number not in (3, 7))
    assert skipped == (Skipped("03.jpg", "corrupt"), Skipped("07.jpg", "corrupt"))


def test_a_limit_takes_the_first_and_looks_no_further() -> None:
    seen: list[int] = []
    chosen, skipped = select_usable(NAMES, refusing(1, 9, seen=seen), limit=4, seed=None, where="here")
    assert chosen == (0, 2, 3, 4)
    assert seen == [0, 1, 2, 3, 4]
    assert [each.identifier for each in skipped] == ["01.jpg"]


def test_a_seed_takes_a_sample_in_order_of_names() -> None:
    chosen, _ = select_usable(NAMES, refusing(), limit=6, seed=0, where="here")
    again, _ = select_usable(NAMES, refusing(), limit=6, seed=0, where="here")
    other, _ = select_usable(NAMES, refusing(), limit=6, seed=1, where="here")
    assert chosen == again == tuple(sorted(chosen))
    assert chosen != other
    assert chosen != (0, 1, 2, 3, 4, 5)
    more, _ = select_usable(NAMES, refusing(), limit=7, seed=0, where="here")
    assert set(chosen) < set(more)
    without, _ = select_usable(NAMES, refusing(chosen[0]), limit=6, seed=0, where="here")
    assert set(chosen[1:]) < set(without)


def test_too_few_are_one_error_that_lists_what_was_left_out() -> None:
    with pytest.raises(
        DataError, match=r"20 usable photos in here; got 19, having left out 1 problem: 03.jpg"
    ):
        select_usable(NAMES, refusing(3), limit=20, seed=None, where="here")
    with pytest.raises(DataError, match=r"at least one; got 0, having left out 20 problems"):
        select_usable(NAMES, refusing(*range(20)), limit=None, seed=None, where="here")
    with pytest.raises(DataError, match="got 0; what to do"):
        select_usable((), refusing(), limit=None, seed=None, where="here")
    with pytest.raises(ConfigError, match="limit of at least 1"):
        select_usable(NAMES, refusing(), limit=0, seed=None, where="here")


def test_what_was_left_out_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    others = (Skipped("a.json", OTHER_FILE), Skipped("b.json", OTHER_FILE), Skipped("README", OTHER_FILE))
    select_usable(NAMES, refusing(2), limit=None, seed=None, where="here", skipped=others)
    said = capsys.readouterr().err
    assert said == (
        "here: 19 photos; left out 1 problem: 02.jpg: corrupt; "
        "3 files that are no pictures (.json, no suffix).\n"
    )
    assert summarise(others[:1]) == "1 file that is no picture (.json)"
    select_usable(NAMES, refusing(), limit=None, seed=None, where="here")
    assert capsys.readouterr().err == ""
