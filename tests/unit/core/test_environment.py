"""The machine and the packages are described without importing the packages."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import aerogel
from aerogel.core import environment as module
from aerogel.core.environment import MAIN_PACKAGES, environment, versions


def test_versions_are_those_installed_and_absent_packages_are_left_out() -> None:
    found = versions(["numpy", "no-such-package-anywhere"])
    assert found == {
        "python": platform.python_version(),
        "aerogel": aerogel.__version__,
        "numpy": importlib.metadata.version("numpy"),
    }


def test_the_environment_names_machine_and_packages() -> None:
    found = environment()
    assert found["python"].startswith(platform.python_version())
    assert int(found["cores"]) >= 1
    assert found["memory"].endswith("GiB")
    assert set(MAIN_PACKAGES) <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from aerogel.core.environment import environment; environment();"
        "print({'torch', 'numpy', 'transformers', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_a_package_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAIN_PACKAGES", ("no-such-package-anywhere",))
    assert environment()["no-such-package-anywhere"] == "not installed"


def test_the_processor_and_graphics_card_are_read_where_the_system_lists_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert module._cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert module._cpu_model(tmp_path / "missing")
    for card in ("0000:01", "0000:02"):
        (tmp_path / "gpus" / card).mkdir(parents=True)
        (tmp_path / "gpus" / card / "information").write_text("Model: \t Some GPU\nIRQ: 1\n")
    assert module._gpu_model(tmp_path / "gpus") == "Some GPU, Some GPU"
    assert module._gpu_model(tmp_path / "missing") == "none found"


def test_gpus_at_work_are_named_where_the_driver_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cuda:
        at_work = True

        def is_initialized(self) -> bool:
            return self.at_work

        def device_count(self) -> int:
            return 2

        def get_device_name(self, number: int) -> str:
            return f"GPU {number}"

    torch = type("Torch", (), {"cuda": Cuda()})
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert module._gpu_model(tmp_path) == "GPU 0, GPU 1"
    monkeypatch.setattr(Cuda, "at_work", False)
    assert module._gpu_model(tmp_path) == "none found"
