"""Starting costs little: no torch, no numpy, under 0.3 seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.arch.tree import packages

BUDGET_SECONDS = 0.3
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
LIGHT_MODULES = [
    "aerogel.errors",
    "aerogel.core.config",
    "aerogel.core.folders",
    "aerogel.core.progress",
    "aerogel.core.registry",
    "aerogel.core.stages",
    "aerogel.condense.config",
]


def heavy_of(trace: str) -> set[str]:
    """Name the heavy packages in the output of ``python -X importtime``."""
    modules = re.findall(r"^import time:.*\|\s+([\w.]+)$", trace, re.M)
    return HEAVY.intersection(module.partition(".")[0] for module in modules)


def processor_seconds(code: str) -> float:
    """Run code in a new interpreter; give its processor time, which a busy machine does not stretch."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS.keys())
def test_starting_loads_nothing_heavy(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    assert heavy_of(done.stderr) == set()
    assert "aerogel" in done.stderr


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS.keys())
def test_starting_is_quick(code: str) -> None:
    taken: list[float] = []
    while len(taken) < 10 and min(taken, default=BUDGET_SECONDS) >= BUDGET_SECONDS:
        taken.append(processor_seconds(code))
    assert min(taken) < BUDGET_SECONDS, taken


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
