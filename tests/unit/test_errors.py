"""Errors keep their message, and are caught by the builtins they refine."""

from __future__ import annotations

import copy
import errno

import pytest

from aerogel import errors
from aerogel.errors import AerogelError, FolderConflictError, StorageFullError, UnknownNameError, compose

REFINED = {
    "ConfigError": ValueError,
    "DivergedError": ArithmeticError,
    "UnknownNameError": KeyError,
    "DataError": ValueError,
    "FolderExistsError": FileExistsError,
    "FolderConflictError": FileExistsError,
    "IntegrityError": ValueError,
    "MismatchError": ValueError,
    "ProjectorError": RuntimeError,
    "MissingDependencyError": ImportError,
    "RankError": RuntimeError,
    "DeviceError": RuntimeError,
    "StorageFullError": OSError,
}


@pytest.mark.parametrize(("name", "builtin"), REFINED.items())
def test_each_error_refines_its_builtin_and_prints_its_message_unquoted(name: str, builtin: type) -> None:
    error = getattr(errors, name)('it\'s "this"')
    assert isinstance(error, AerogelError)
    assert isinstance(error, builtin)
    assert str(error) == 'it\'s "this"'


def test_every_error_of_the_module_is_listed_here() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, AerogelError) and value is not AerogelError
    }
    assert defined == set(REFINED)
    assert defined <= set(errors.__all__)


def test_a_key_error_would_quote_what_ours_does_not() -> None:
    assert str(KeyError("name")) == "'name'"
    assert str(UnknownNameError("name")) == "name"
    assert str(UnknownNameError()) == ""


def test_a_conflict_is_caught_as_an_existing_folder() -> None:
    with pytest.raises(errors.FolderExistsError):
        raise FolderConflictError("taken")


def test_a_full_disk_carries_the_systems_number_also_when_copied() -> None:
    for error in (StorageFullError("full"), copy.copy(StorageFullError("full"))):
        assert error.errno == errno.ENOSPC
        assert str(error) == "full"


def test_a_message_says_what_was_expected_what_came_and_what_to_do() -> None:
    assert compose("a", "b", "c") == "expected a; got b; what to do: c"
