"""Files stay under 400 lines and functions under 60."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.arch.tree import functions, name_of, parse, python_files

FILE_LINES = 400
FUNCTION_LINES = 60


def long_functions(tree: ast.Module) -> list[str]:
    found = []
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines >= FUNCTION_LINES:
            found.append(f"{function.name} has {lines} lines")
    return found


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_file_and_its_functions_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < FILE_LINES, f"{name_of(path)} has {lines} lines; split it by noun"
    assert long_functions(parse(path)) == [], f"{name_of(path)}: split the function by verb"


def test_a_long_function_is_found() -> None:
    body = "\n".join("    x = 0" for _ in range(FUNCTION_LINES - 1))
    assert long_functions(ast.parse(f"def long():\n{body}\n")) == [f"long has {FUNCTION_LINES} lines"]
    shorter = body.rpartition("\n")[0]
    assert long_functions(ast.parse(f"def short():\n{shorter}\n")) == []
