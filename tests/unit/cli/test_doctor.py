"""The doctor finds what is broken and says what to do; what is merely absent is no problem."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from aerogel.cli import doctor
from aerogel.cli.doctor import Finding

Usage = namedtuple("Usage", "total used free")


def without(package: str) -> Callable[[str], ModuleSpec | None]:
    find = importlib.util.find_spec
    return lambda name: None if name == package else find(name)


def state_of(findings: list[Finding], what: str) -> Finding:
    return next(each for each in findings if each.what == what)


def test_this_python_is_fine_and_an_old_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.state for each in doctor.check_python()] == ["ok"]
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    (found,) = doctor.check_python()
    assert (found.state, found.seen) == ("problem", "3.9.1")


@pytest.mark.parametrize(
    ("package", "name", "state"), [("peft", "peft", "absent"), ("yaml", "pyyaml", "problem")]
)
def test_a_missing_package_names_what_installs_it(
    package: str, name: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state_of(list(doctor.check_packages()), name).state == "ok"
    monkeypatch.setattr(importlib.util, "find_spec", without(package))
    found = state_of(list(doctor.check_packages()), name)
    assert found.state == state and "pip install" in found.remedy


def said(code: int, out: str, err: str) -> Callable[[str], subprocess.CompletedProcess[str]]:
    return lambda trial: subprocess.CompletedProcess([trial], code, out, err)


def test_a_broken_torch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_run_python", said(0, "16.0\n", ""))
    assert next(doctor.check_torch()).state == "ok"
    monkeypatch.setattr(doctor, "_run_python", said(1, "", "Traceback\nImportError: libtorch"))
    found = next(doctor.check_torch())
    assert (found.state, found.seen) == ("problem", "ImportError: libtorch")
    monkeypatch.setattr(doctor, "_run_python", said(-11, "", ""))
    assert next(doctor.check_torch()).seen == "exit code -11"


def test_a_broken_torchvision_is_worse_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("torchvision"))
    assert next(doctor.check_torchvision()).state == "ok"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(doctor, "_run_python", said(1, "", "RuntimeError: operator torchvision::nms"))
    found = next(doctor.check_torchvision())
    assert found.state == "problem" and "pip uninstall torchvision" in found.remedy


def test_damaged_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {each.state for each in doctor.check_weights()} == {"ok"}
    from aerogel.core import files

    monkeypatch.setattr(files, "sha256_file", lambda path: "0" * 64)
    (found, *_) = doctor.check_weights()
    assert found.state == "problem" and "000000000000 instead of" in found.seen


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 0, 10**11))
    assert [each.state for each in doctor.check_disk()] == ["ok", "ok"]
    assert not (tmp_path / "not").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 10**12, 10**6))
    assert [each.state for each in doctor.check_disk()] == ["problem", "problem"]


def test_the_code_interpreter_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._run_python("print(1)").stdout == "1\n"
    monkeypatch.setattr(doctor, "_TRIAL_SECONDS", 0.01)
    assert "no answer" in doctor._run_python("import time; time.sleep(60)").stderr


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("absent", 0), ("problem", 1)])
def test_exit_code_and_json(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "check_python", lambda: iter([]))
    monkeypatch.setattr(doctor, "check_packages", lambda: iter([Finding("x", state, "seen", "do it")]))  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "SLOW_CHECKS", ())
    assert doctor.doctor_command(json=True) == code
    heard = capsys.readouterr()
    assert json.loads(heard.out)["ok"] is (code == 0)
    assert "do it" in heard.err
