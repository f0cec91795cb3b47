"""Imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.rules import imported
from tests.arch.tree import ROOT, SOURCE, name_of, parse, project, python_files

LAYERS = next(
    contract["layers"]
    for contract in project()["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
)


def level_of(room: str) -> int:
    """Give a room's height; the areas share one."""
    for height, layer in enumerate(reversed(LAYERS)):
        if room in [name.strip(" ()") for name in layer.split("|")]:
            return height
    raise LookupError(f"{room} is in no layer of pyproject.toml")


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def upward(room: str, modules: list[str]) -> list[str]:
    """List the imported modules that lie above a room, or beside it in another area."""
    found = []
    for module in modules:
        parts = module.split(".")
        if parts[0] != "aerogel" or len(parts) < 2 or parts[1] in {room, "__version__"}:
            continue
        if level_of(parts[1]) >= level_of(room):
            found.append(module)
    return found


@pytest.mark.parametrize("path", [p for p in python_files("src") if p.parent != SOURCE], ids=name_of)
def test_no_import_points_up(path: Path) -> None:
    modules: list[str] = []
    for node in ast.walk(parse(path)):
        modules += [name for name in imported(node) if name.count(".") < 3 and name != "aerogel"]
    assert upward(room_of(path), modules) == []


def test_upward_imports_are_recognised() -> None:
    assert upward("core", ["aerogel.measure.latency"]) == ["aerogel.measure.latency"]
    assert upward("condense", ["aerogel.slim"]) == ["aerogel.slim"]
    assert upward("condense", ["aerogel.core.config", "aerogel.condense.views", "torch"]) == []


def test_every_room_has_its_layer() -> None:
    for path in python_files("src"):
        if path.parent != SOURCE or path.stem == "errors":
            level_of(room_of(path))


def test_the_layer_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
