"""One run at a time, and none after its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from aerogel.core.locks import hold_lock, lock_path
from aerogel.errors import DataError, FolderConflictError

HOLDER = """
    import os, sys, time
    from aerogel.core.locks import hold_lock
    with hold_lock(sys.argv[1]):
        child = os.fork() if sys.argv[2:] else -1
        if child <= 0:
            # The child speaks for itself: only once it runs has it let go of the lock.
            print(os.getpid(), flush=True)
        time.sleep(60)
"""


def start_holder(folder: Path, *flags: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_lock_is_taken_given_back_and_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_lock(tmp_path / "new" / "out"):
            assert lock_path(tmp_path / "new" / "out").read_text() == f"{os.getpid()}\n"
    assert os.listdir(tmp_path / "new") == []


def test_the_same_process_is_kept_out_too(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def enter() -> None:
        try:
            with hold_lock(tmp_path / "out"):
                pass
        except FolderConflictError as error:
            caught.append(error)

    with hold_lock(tmp_path / "out"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        with hold_lock(tmp_path / "other"):
            pass
    assert f"process {os.getpid()}" in str(caught[0])


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    process, _ = start_holder(tmp_path / "out")
    try:
        with pytest.raises(FolderConflictError, match=f"process {process.pid}"), hold_lock(tmp_path / "out"):
            pass
    finally:
        kill(process)
    assert lock_path(tmp_path / "out").exists()
    with hold_lock(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_orphaned_worker_does_not_hold_the_lock(tmp_path: Path) -> None:
    process, child = start_holder(tmp_path / "out", "fork")
    try:
        kill(process)
        os.kill(child, 0)
        with hold_lock(tmp_path / "out"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_an_old_lock_file_alone_holds_nothing(tmp_path: Path) -> None:
    lock_path(tmp_path / "out").write_text("1\n")
    with hold_lock(tmp_path / "out"):
        assert lock_path(tmp_path / "out").read_text() == f"{os.getpid()}\n"


def test_an_error_in_the_block_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(tmp_path / "out"):
        raise KeyError
    with hold_lock(tmp_path / "out"):
        pass


def test_a_file_on_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="folders on the way"), hold_lock(tmp_path / "file" / "out"):
        pass


def test_many_threads_never_hold_it_together(tmp_path: Path) -> None:
    inside, entered, overlaps = [0], [0], [0]
    deadline = threading.Event()

    def work() -> None:
        for _ in range(100):
            try:
                with hold_lock(tmp_path / "out"):
                    inside[0] += 1
                    overlaps[0] += inside[0] > 1
                    entered[0] += 1
                    deadline.wait(0.0002)
                    inside[0] -= 1
            except FolderConflictError:
                deadline.wait(0.0002)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered[0] > 0
    assert overlaps[0] == 0
