"""Starting costs little: no torch, no numpy, few modules. Time would tell of the machine as well."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.arch.tree import packages

HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "matplotlib",
    "numpy",
    "peft",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}
HELP = "import sys; sys.argv = ['aerogel', '--help']; from aerogel.cli import main; sys.exit(main())"
STARTS = {"import aerogel": "import aerogel", "aerogel --help": HELP}
MOST_MODULES = {"import aerogel": 100, "aerogel --help": 420}  # 51 and 340 when this was written
LIGHT_MODULES = [
    "aerogel.errors",
    "aerogel.core.config",
    "aerogel.core.folders",
    "aerogel.core.progress",
    "aerogel.core.registry",
    "aerogel.core.stages",
    "aerogel.condense.config",
]


def list_modules(trace: str) -> list[str]:
    """Name all modules in the output of ``python -X importtime``."""
    return re.findall(r"^import time:.*\|\s+([\w.]+)$", trace, re.M)


def heavy_of(trace: str) -> set[str]:
    """Name the heavy packages in the output of ``python -X importtime``."""
    return HEAVY.intersection(module.partition(".")[0] for module in list_modules(trace))


def trace_imports(code: str) -> str:
    """Run code in a new interpreter; return what ``-X importtime`` says of it."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("start", STARTS)
def test_starting_loads_little_and_nothing_heavy(start: str) -> None:
    trace = trace_imports(STARTS[start])
    assert heavy_of(trace) == set()
    assert "aerogel" in list_modules(trace)
    assert len(list_modules(trace)) < MOST_MODULES[start]


@pytest.mark.parametrize("module", [*packages(), *LIGHT_MODULES])
def test_light_modules_load_nothing_heavy(module: str) -> None:
    check = f"import sys, {module}; print(*sorted({HEAVY!r}.intersection(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_heavy_imports_are_recognised() -> None:
    trace = (
        "import time:       147 |        147 | aerogel\nimport time:        10 |      99999 |   torch._C\n"
    )
    assert heavy_of(trace) == {"torch"}
