from __future__ import annotations

import subprocess
import sys

import pytest

import aerogel.measure as measure


def test_every_public_name_resolves() -> None:
    for name in measure.__all__:
        assert getattr(measure, name).__name__ == name
        assert name in dir(measure)


def test_public_names_do_not_hide_behind_modules() -> None:
    """A submodule, once imported, becomes an attribute of the package: no public name may be one."""
    from importlib import import_module

    homes = {getattr(measure, name).__module__ for name in measure.__all__}
    for home in homes:
        import_module(home)
    assert {home.rpartition(".")[2] for home in homes}.isdisjoint(measure.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="weight"):
        measure.weight  # noqa: B018


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, aerogel.measure; aerogel.measure.Table; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
