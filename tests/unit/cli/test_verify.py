"""Faults are findings, other errors are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.failures import OK, PROBLEM
from aerogel.cli.verify import find_fault, verify_command
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


def test_labels_are_checked_with_the_backbone_in_the_place_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from aerogel.condense import condensed

    def load(path: Path, *, backbone: str | None = None) -> SimpleNamespace:
        if backbone not in (None, "there"):
            raise MismatchError("other weights")
        return SimpleNamespace(generator=path)

    monkeypatch.setattr(condensed, "load_condensed", load)
    monkeypatch.setattr("aerogel.cli.verify.find_archive", lambda folder: folder)
    assert verify_command(tmp_path, backbone="there") == OK
    assert verify_command(tmp_path, backbone="elsewhere") == PROBLEM
