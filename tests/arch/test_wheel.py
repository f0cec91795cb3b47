"""The wheel holds what the package needs at run time, and nothing of the workshop."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.arch.tree import ROOT, SOURCE, project_files

MOST_BYTES = 25_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def shipped(path: Path) -> str | None:
    """Give a project file's name in the wheel, or None for one that stays behind."""
    if SOURCE in path.parents:
        return f"aerogel/{path.relative_to(SOURCE).as_posix()}"
    return None


def test_modules_templates_weights_and_recipes_are_inside(wheel_names: set[str]) -> None:
    expected = {name for path in project_files() if (name := shipped(path))}
    assert "aerogel/py.typed" in expected
    assert {Path(name).suffix for name in expected} >= {".j2", ".py", ".safetensors", ".yaml"}
    assert expected - wheel_names == set()


def test_nothing_else_is_inside(wheel_names: set[str]) -> None:
    expected = {name for path in project_files() if (name := shipped(path))}
    assert {name for name in wheel_names - expected if ".dist-info/" not in name} == set()


def test_the_licence_is_inside(wheel_names: set[str]) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in wheel_names)


def test_the_wheel_is_light(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES
