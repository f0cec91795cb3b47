"""Errors become one message and an exit code; only what is a bug shows a traceback."""

from __future__ import annotations

import pytest

from aerogel.cli.failures import EXTRAS, INTERRUPTED, MISTAKE, OK, explain_missing, guard, install_hint
from aerogel.errors import DataError, StorageFullError
from tests.arch.tree import project


def raising(error: BaseException) -> object:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("no images"), MISTAKE, "aerogel: no images\n"),
        (StorageFullError("disk full"), MISTAKE, "aerogel: disk full\n"),
        (PermissionError(13, "Permission denied", "there"), MISTAKE, "aerogel: Permission denied: there\n"),
        (KeyboardInterrupt(), INTERRUPTED, "the same command continues"),
        (ModuleNotFoundError("No module", name="peft.tuners"), MISTAKE, 'pip install "aerogel[condense]"'),
    ],
)
def test_known_errors_are_told(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard(raising(error)) == code  # type: ignore[arg-type]
    assert said in capsys.readouterr().err
    with pytest.raises(type(error)):
        guard(raising(error), debug=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ModuleNotFoundError("no", name="aerogel.nothing")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        guard(raising(error))  # type: ignore[arg-type]


def test_the_code_of_the_command_is_returned() -> None:
    assert guard(lambda: OK) == 0
    assert guard(lambda: 1) == 1


def test_every_package_is_in_the_extra_that_is_named() -> None:
    names = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
    metadata = project()["project"]
    for package, extra in EXTRAS.items():
        listed = metadata["optional-dependencies"][extra] if extra else metadata["dependencies"]
        name = names.get(package, package)
        assert any(line.startswith(name) for line in listed), f"{name} is not in {extra or 'the core'}"


def test_hints() -> None:
    assert install_hint("jinja2") == 'pip install "aerogel[report]"'
    assert "reinstall" in install_hint("torch")
    assert explain_missing(ModuleNotFoundError("no", name="unheard_of")) is None
