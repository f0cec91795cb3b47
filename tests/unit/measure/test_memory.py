from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aerogel.errors import ConfigError, DataError, DeviceError
from aerogel.measure import memory
from aerogel.measure.memory import measure_command_memory, measure_memory

LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
MB = 1_000_000


def touch(megabytes: int) -> Callable[[], None]:
    return lambda: np.full(megabytes * MB, 1, dtype=np.uint8).fill(2)


@LINUX
def test_the_peak_of_a_call_is_seen_and_forgotten() -> None:
    quiet = measure_memory(lambda: None).value
    loud = measure_memory(touch(200))
    assert 190 * MB < loud.value - quiet < 260 * MB
    assert loud.unit == "bytes"
    assert measure_memory(lambda: None).value < loud.value - 150 * MB


@LINUX
def test_samples_stand_in_where_the_mark_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_mark", lambda: False)
    quiet = measure_memory(lambda: None).value

    def hold() -> None:
        block = np.full(200 * MB, 1, dtype=np.uint8)
        for _ in range(3):
            block.fill(2)

    measured = measure_memory(hold)
    assert "sampled" in measured.note
    assert 150 * MB < measured.value - quiet < 260 * MB


@LINUX
def test_a_command_is_not_charged_with_this_process() -> None:
    ballast = np.full(150 * MB, 1, dtype=np.uint8)
    small = measure_command_memory([sys.executable, "-S", "-c", "pass"]).value
    large = measure_command_memory([sys.executable, "-S", "-c", f"x = b'1' * {100 * MB}"]).value
    assert ballast[-1] == 1
    assert 1 * MB < small < 60 * MB
    assert 95 * MB < large - small < 120 * MB


@LINUX
def test_a_command_that_does_not_succeed_is_refused() -> None:
    with pytest.raises(DataError, match="exit code 3"):
        measure_command_memory([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    with pytest.raises(DataError, match="exists"):
        measure_command_memory(["no-such-program-here"])
    with pytest.raises(DataError, match="exists"):
        measure_command_memory([])
    with pytest.raises(DataError, match=r"within 0\.5 s"):
        measure_command_memory([sys.executable, "-S", "-c", "import time; time.sleep(60)"], timeout_s=0.5)


def test_other_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="cpu"):
        measure_memory(lambda: None, device="mps")
    with pytest.raises(DeviceError, match="cuda:99"):
        measure_memory(lambda: None, device="cuda:99")


def test_systems_without_proc_are_sent_to_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    with pytest.raises(DeviceError, match="measure_command_memory"):
        measure_memory(lambda: None)
