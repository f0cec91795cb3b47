"""Faults are findings, other errors are not."""

from __future__ import annotations

import pytest

from aerogel.cli.verify import find_fault
from aerogel.errors import DataError, IntegrityError, MismatchError


def test_a_sound_check_has_no_fault() -> None:
    assert find_fault(lambda: None) is None


@pytest.mark.parametrize("error", [IntegrityError("changed"), MismatchError("changed")])
def test_damage_is_a_finding(error: Exception) -> None:
    def check() -> None:
        raise error

    assert find_fault(check) == "changed"


def test_a_wrong_path_is_the_users_mistake() -> None:
    def check() -> None:
        raise DataError("no folder")

    with pytest.raises(DataError):
        find_fault(check)
