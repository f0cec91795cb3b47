"""The checked-out tree as the layout rules see it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "aerogel"
CODE_FOLDERS = ("src", "tests", "benchmarks", "examples", "recipes", "docs")


@cache
def project_files() -> tuple[Path, ...]:
    """List what git tracks or would track; outside a checkout, the same folders from disk."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
        files = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*")]
        files += list(ROOT.glob("*"))
    return tuple(sorted(path for path in files if path.is_file()))


def python_files(*folders: str) -> list[Path]:
    """List the project's Python files below the named top folders."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in (folders or CODE_FOLDERS)
    ]


def name_of(path: Path) -> str:
    """Give the path as messages show it."""
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    """Parse one Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module, methods and inner functions included."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def packages() -> list[str]:
    """List the dotted names of the packages in src."""
    found = []
    for path in python_files("src"):
        if path.name == "__init__.py":
            found.append(".".join(path.parent.relative_to(SOURCE.parent).parts))
    return found


@cache
def project() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
