"""What is public is listed, resolves and is described; what a release states, it states once."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re

import pytest

import aerogel
from tests.arch.tree import ROOT, packages, project

PACKAGES = [name for name in packages() if not name.startswith("aerogel.cli")]


def described(value: object) -> bool:
    """Tell whether somebody wrote the docstring: dataclasses make one of their fields."""
    text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    if not text or not text.strip():
        return False
    return not (
        dataclasses.is_dataclass(value) and re.match(rf"{getattr(value, '__name__', '')}\(.*\)$", text, re.S)
    )


def needs_words(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)


def public_methods(value: object) -> list[tuple[str, object]]:
    if not inspect.isclass(value):
        return []
    return [
        (name, member)
        for name, member in vars(value).items()
        if inspect.isfunction(member) and name[0] != "_"
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_and_are_described(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None)
    assert names is not None, f"{package}/__init__.py lists what is public in __all__"
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(module)), f"{package}: __dir__ leaves out lazily resolved names"
    bare = []
    for name in names:
        value = getattr(module, name)
        if needs_words(value) and not described(value):
            bare.append(name)
        bare += [f"{name}.{method}" for method, member in public_methods(value) if not described(member)]
    assert bare == [], "the first line of a docstring is the effect, as a verb"


def test_a_made_docstring_does_not_count() -> None:
    @dataclasses.dataclass
    class Bare:
        size_bytes: int

    @dataclasses.dataclass
    class Told:
        """Holds a size."""

        size_bytes: int

    assert not described(Bare)
    assert described(Told)


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(aerogel.__version__)}$", citation, re.M)
    assert f"## [{aerogel.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_bound_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounds = [line for line in lines if re.match(r'\s*"[A-Za-z][\w.-]*(\[[\w,]+\])?[<>=!~]=?[^"]*",', line)]
    assert len(bounds) >= len(project()["project"]["dependencies"])
    assert [line for line in bounds if "#" not in line] == []
