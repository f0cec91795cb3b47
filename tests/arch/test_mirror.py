"""Unit tests mirror the source: every module with code has its test file, every test file has its module."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.arch.tree import ROOT, SOURCE, name_of, parse, python_files

UNIT = ROOT / "tests" / "unit"


def has_code(tree: ast.Module) -> bool:
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for node in tree.body)


def modules() -> list[Path]:
    return [path for path in python_files("src") if path.name not in {"__init__.py", "__main__.py"}]


def unit_tests() -> list[Path]:
    return [path for path in python_files("tests") if UNIT in path.parents and path.name.startswith("test_")]


def is_test_of(test: Path, module: Path) -> bool:
    """A module's tests are test_<module>.py and, where one file is not enough, test_<module>_<aspect>.py."""
    if test.parent.relative_to(UNIT) != module.parent.relative_to(SOURCE):
        return False
    stem = test.stem.removeprefix("test_")
    return stem == module.stem or stem.startswith(f"{module.stem}_")


def test_every_module_with_code_has_its_unit_test() -> None:
    tests = unit_tests()
    names = {(test.parent.relative_to(UNIT), test.name) for test in tests}
    bare = [
        name_of(module)
        for module in modules()
        if has_code(parse(module))
        and (module.parent.relative_to(SOURCE), f"test_{module.stem}.py") not in names
    ]
    assert bare == [], "write tests/unit/<same path>/test_<name>.py"


def test_every_unit_test_has_its_module() -> None:
    known = modules()
    orphans = [
        name_of(test)
        for test in unit_tests()
        if not any(is_test_of(test, module) for module in known)
        and not (
            test.name == "test_init.py" and (SOURCE / test.parent.relative_to(UNIT) / "__init__.py").is_file()
        )
    ]
    assert orphans == [], "move the test to its module's path, or to tests/parity, tests/dist, tests/cli"


def test_a_test_belongs_to_its_module_only() -> None:
    module = SOURCE / "core" / "config.py"
    assert is_test_of(UNIT / "core" / "test_config.py", module)
    assert is_test_of(UNIT / "core" / "test_config_yaml.py", module)
    assert not is_test_of(UNIT / "condense" / "test_config.py", module)
    assert not is_test_of(UNIT / "core" / "test_configs.py", module)
