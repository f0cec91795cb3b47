"""Measure peak memory: of a call in this process, or of a command in a fresh one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from aerogel.errors import ConfigError, DataError, DeviceError, compose
from aerogel.measure.results import Measurement
from aerogel.measure.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PROC = Path("/proc/self")
_SAMPLE_S = 0.001
# A process inherits the peak of the one that starts it, also across exec: started from here, a small command
# would be charged with this process. An interpreter that has loaded nothing starts it instead, so that only
# that is the floor.
_LAUNCHER = """
import os, sys
pipe = int(sys.argv[1])
os.set_inheritable(pipe, False)
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
os.write(pipe, f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}".encode())
"""


def measure_memory(
    fn: Callable[[], object], *, device: str = "cpu", name: str = "peak memory"
) -> Measurement:
    """Measure the peak memory in bytes while a call runs.

    On "cuda" it is what torch's allocator had handed out at most, weights included. On "cpu" it is the
    resident set of the whole process, interpreter and libraries included: the kernel's own high-water mark,
    or samples taken every millisecond where the mark cannot be reset. The note says which, and the level
    before the call. Memory that earlier calls left to the allocator is part of that level;
    ``measure_command_memory`` starts afresh.

    Raises:
        ConfigError: another kind of device.
        DeviceError: no such GPU, or a system that shows no resident set (not Linux).
    """
    if device.partition(":")[0] == "cuda":
        return _measure_cuda(fn, device, name)
    if device != "cpu":
        raise ConfigError(compose("device 'cpu' or 'cuda'", repr(device), "measure on one of these"))
    if not (_PROC / "statm").exists():
        raise DeviceError(
            compose(
                "a system with /proc", sys.platform, "put the call in a script and use measure_command_memory"
            )
        )
    before = _resident_bytes()
    watch = _watch_mark if _reset_mark() else _watch_samples
    with watch() as peak:
        fn()
    how = "high-water mark of the kernel" if watch is _watch_mark else "sampled every ms"
    note = f"resident set of the process, {how}; {format_bytes(before)} before the call"
    return Measurement(name, max(before, *peak), "bytes", samples=1, note=note)


def measure_command_memory(
    command: Sequence[str], *, timeout_s: float | None = None, name: str = "peak memory"
) -> Measurement:
    """Run a command in a fresh process and measure its peak resident set in bytes, interpreter included.

    Exact, and untouched by what this process holds: nothing is sampled. Children of the command are not added
    up. The smallest value that can be seen is a bare Python interpreter, about 10 MB.

    Raises:
        DataError: the command is empty, does not exist, fails or takes longer than ``timeout_s``.
        DeviceError: the operating system does not account for single processes (Windows).
    """
    if not hasattr(os, "wait4"):
        raise DeviceError(compose("a system with wait4", sys.platform, "run this on Linux or macOS"))
    program = shutil.which(command[0]) if command else None
    if program is None:
        raise DataError(
            compose("a command that exists", repr(list(command)), "install it or correct its path")
        )
    reader, writer = os.pipe()
    try:
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writer), program, *command[1:]]
        # Its own session: on a timeout the launcher and the command end together.
        with subprocess.Popen(launch, pass_fds=(writer,), start_new_session=True) as process:
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                _end(process)
                raise DataError(
                    compose(f"an end within {timeout_s} s", "none", "allow more time or give it less to do")
                ) from error
            except BaseException:
                _end(process)
                raise
        os.close(writer)
        writer = -1
        answer = os.read(reader, 100).decode().split()
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if len(answer) != 2 or answer[0] != "0":
        got = f"exit code {answer[0]}" if answer else f"no start of {program}"
        raise DataError(compose("a command that succeeds", got, "run it alone and read its messages"))
    unit = 1 if sys.platform == "darwin" else 1024
    note = "resident set of a fresh process, as the kernel accounted for it at its end"
    return Measurement(name, int(answer[1]) * unit, "bytes", samples=1, note=note)


def _end(process: subprocess.Popen[bytes]) -> None:
    from signal import SIGKILL

    os.killpg(process.pid, SIGKILL)
    process.wait()


def _measure_cuda(fn: Callable[[], object], device: str, name: str) -> Measurement:
    import torch

    where = torch.device(device)
    if not torch.cuda.is_available() or (where.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            compose(f"device {device!r}", "no such device on this machine", "pass device='cpu'")
        )
    torch.cuda.synchronize(where)
    torch.cuda.reset_peak_memory_stats(where)
    before = torch.cuda.memory_allocated(where)
    fn()
    torch.cuda.synchronize(where)
    note = (
        f"max_memory_allocated on {torch.cuda.get_device_name(where)}; {format_bytes(before)} before the call"
    )
    return Measurement(name, torch.cuda.max_memory_allocated(where), "bytes", samples=1, note=note)


@contextmanager
def _watch_mark() -> Iterator[list[int]]:
    peak: list[int] = []
    yield peak
    peak.append(_high_water_bytes())


@contextmanager
def _watch_samples() -> Iterator[list[int]]:
    peak = [_resident_bytes()]
    done = Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_S):
            peak[0] = max(peak[0], _resident_bytes())

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], _resident_bytes())


def _reset_mark() -> bool:
    """Set the kernel's high-water mark back to the present resident set; say whether that worked."""
    try:
        (_PROC / "clear_refs").write_text("5")  # proc(5): 5 resets VmHWM and touches nothing else
        return _high_water_bytes() > 0
    except OSError:
        return False


def _high_water_bytes() -> int:
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident_bytes() -> int:
    pages = int((_PROC / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
