"""The rules about what code may say, over the tree; and each rule on code that breaks it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.arch import rules
from tests.arch.tree import ROOT, name_of, parse, project, python_files

SOURCE_RULES = (
    rules.no_pickle,
    rules.only_safe_loaders,
    rules.no_eval,
    rules.no_assert,
    rules.no_bare_except,
    rules.no_mutable_default,
    rules.no_global,
    rules.no_star,
)
# What the processes of one run say to each other over pipes of their own; nothing of it is ever stored.
BETWEEN_PROCESSES = {"src/aerogel/parallel/messages.py", "src/aerogel/parallel/residency.py"}
FORBIDDEN_NAMES = {"base", "common", "helper", "helpers", "misc", "util", "utils"}

BROKEN = [
    (rules.no_pickle, "import pickle"),
    (rules.no_pickle, "from dill import loads"),
    (rules.no_pickle, "from torch import load"),
    (rules.no_pickle, "from yaml import load"),
    (rules.no_pickle, "torch.load(path, weights_only=True)"),
    (rules.no_pickle, "numpy.load(path, allow_pickle=True)"),
    (rules.no_pickle, "numpy.load(path, allow_pickle=flag)"),
    (rules.no_pickle, "yaml.load(text)"),
    (rules.no_pickle, "yaml.load(text, Loader=yaml.Loader)"),
    (rules.only_safe_loaders, "class RecipeLoader(yaml.Loader): pass"),
    (rules.only_safe_loaders, "class OtherLoader(yaml.SafeLoader): pass"),
    (rules.no_pickle, "AutoModel.from_pretrained(name, trust_remote_code=True)"),
    (rules.no_pickle, "importlib.import_module('pickle')"),
    (rules.no_eval, "eval(text)"),
    (rules.no_torchvision, "import torchvision.transforms as T"),
    (rules.no_torchvision, "def late():\n    from torchvision import io"),
    (rules.no_assert, "assert x, 'a message'"),
    (rules.no_bare_except, "try:\n    f()\nexcept:\n    pass"),
    (rules.no_mutable_default, "def f(x=[]): pass"),
    (rules.no_mutable_default, "def f(*, x={}): pass"),
    (rules.no_mutable_default, "f = lambda x=dict(): x"),
    (rules.no_global, "def f():\n    global state\n    state = 1"),
    (rules.no_star, "from os import *"),
]

SOUND = [
    (rules.no_pickle, "numpy.load(path, allow_pickle=False)"),
    (rules.no_pickle, "yaml.safe_load(text)"),
    (rules.no_pickle, "yaml.load(text, Loader=yaml.SafeLoader)"),
    (rules.only_safe_loaders, "class RecipeLoader(yaml.SafeLoader): pass"),
    (rules.no_eval, "model.eval()"),
    (rules.no_torchvision, "find_spec('torchvision')"),
    (rules.no_bare_except, "try:\n    f()\nexcept OSError:\n    pass"),
    (rules.no_mutable_default, "def f(x=(), y=frozenset(), z=None): pass"),
]


@pytest.mark.parametrize("path", python_files("src"), ids=name_of)
def test_source_keeps_the_rules(path: Path) -> None:
    held = [
        each for each in SOURCE_RULES if each is not rules.no_pickle or name_of(path) not in BETWEEN_PROCESSES
    ]
    broken = {rule.__name__: faults for rule in held if (faults := rules.faults(parse(path), rule))}
    assert broken == {}


def test_those_that_may_pickle_do() -> None:
    for name in BETWEEN_PROCESSES:
        assert rules.faults(parse(ROOT / name), rules.no_pickle) != []


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_no_file_imports_torchvision(path: Path) -> None:
    assert rules.faults(parse(path), rules.no_torchvision) == []


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_file_names_say_what_is_inside(path: Path) -> None:
    words = [*path.relative_to(ROOT).parent.parts, path.stem.removeprefix("test_")]
    assert not FORBIDDEN_NAMES.intersection(words), (
        f"{name_of(path)}: name the noun, or move it to its only caller"
    )


def test_no_requirement_brings_torchvision() -> None:
    table = project()["project"]
    extras = table["optional-dependencies"].values()
    requirements = [*table["dependencies"], *(wanted for extra in extras for wanted in extra)]
    assert requirements
    for wanted in requirements:
        assert not wanted.startswith(("torchvision", "timm", "open_clip", "open-clip", "torchaudio")), wanted
    assert "torchvision" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("rule", "code"), BROKEN, ids=[code.splitlines()[0] for _, code in BROKEN])
def test_rule_finds(rule: rules.Rule, code: str) -> None:
    assert rules.faults(ast.parse(code), rule) != []


@pytest.mark.parametrize(("rule", "code"), SOUND, ids=[code.splitlines()[0] for _, code in SOUND])
def test_rule_lets_pass(rule: rules.Rule, code: str) -> None:
    assert rules.faults(ast.parse(code), rule) == []
