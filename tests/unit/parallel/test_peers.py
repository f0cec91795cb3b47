"""What fails on the way to other processes is told from all else."""

from __future__ import annotations

import pytest

from aerogel.errors import RankError
from aerogel.parallel.peers import LostError, reaching


@pytest.mark.parametrize(
    "error", [RuntimeError("closed\nin C++"), ConnectionResetError("closed"), EOFError()]
)
def test_what_fails_on_the_way_is_a_loss(error: Exception) -> None:
    with pytest.raises(LostError, match=r"got (closed|EOFError); what to do") as caught, reaching():
        raise error
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, RankError)


def test_a_loss_is_told_once() -> None:
    with pytest.raises(LostError, match=r"^first$"), reaching(), reaching():
        raise LostError("first")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_all_else_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), reaching():
        raise error
