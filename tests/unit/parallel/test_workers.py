"""Workers are started, missed, blamed and ended; threads stand in for the processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aerogel.errors import DeviceError, RankError
from aerogel.parallel import workers
from aerogel.parallel.messages import Failure, open_message, pack_message
from aerogel.parallel.peers import LostError
from aerogel.parallel.workers import Workers

CPU = torch.device("cpu")
Part = Callable[["Process", Connection], None]


class Process:
    """Be a worker process as far as its owner can tell."""

    def __init__(self, settings: dict[str, Any], said: Path, play: Part) -> None:
        self.rank, self.returncode, self.killed = settings["rank"], None, False
        self._settings, self._said, self._play = settings, said, play
        said.write_text("")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = self.connect(self._settings["key"])
        connection.send_bytes(pack_message(self.rank))
        with suppress(EOFError, OSError):
            self._play(self, connection)

    def connect(self, key: str) -> Connection:
        return Client(tuple(self._settings["address"]), authkey=bytes.fromhex(key))

    def end(self, code: int, said: str = "") -> None:
        self._said.write_text(said)
        self.returncode = code  # type: ignore[assignment]

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        # Whoever owns it removes the file of what it said right after.
        self._thread.join(5.0 if timeout is None else timeout)

    def kill(self) -> None:
        self.killed = True


def echo(process: Process, connection: Connection) -> None:
    """Answer what is said until the line is closed."""
    while True:
        connection.send_bytes(pack_message((process.rank, open_message(connection.recv_bytes()))))


def listen(process: Process, connection: Connection) -> None:
    """Be silent."""
    while True:
        connection.recv_bytes()


def report(lost: bool) -> Part:
    def play(process: Process, connection: Connection) -> None:
        connection.recv_bytes()
        connection.send_bytes(pack_message(Failure(process.rank, "Traceback\nValueError: no\n", lost)))
        process.end(1)

    return play


def die(code: int, said: str = "") -> Part:
    def play(process: Process, connection: Connection) -> None:
        connection.recv_bytes()
        connection.close()
        process.end(code, said)

    return play


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Workers]]:
    """Return what makes workers of parts to play."""
    made: list[Workers] = []

    def make(*parts: Part) -> Workers:
        def start(settings: dict[str, Any], said: Path) -> Process:
            return Process(settings, said, parts[settings["rank"] - 1])

        monkeypatch.setattr(workers, "_start_process", start)
        made.append(Workers([CPU] * (len(parts) + 1), threads=1, timeout_s=0.5))
        return made[-1]

    monkeypatch.setattr(workers, "_GRACE_S", 1.0)
    monkeypatch.setattr(Workers, "_join", lambda self: None)
    yield make
    for each in made:
        each.stop()


def lose(owner: Workers) -> Callable[[], None]:
    """Return work that needs the workers, after a word to them, and misses them."""

    def work() -> None:
        owner.tell("go on")
        raise LostError("expected an answer; got Connection closed; what to do: wait")

    return work


def test_all_are_told_and_answer_in_their_order(build: Callable[..., Workers]) -> None:
    owner = build(echo, echo, echo)
    owner.tell("hello")
    owner.await_lane("unet")
    assert owner.resident_bytes == {"unet": [(1, "hello"), (2, "hello"), (3, "hello")]}
    assert owner.guard(lambda: "done") == "done"


@pytest.mark.parametrize(("cores", "own"), [((3, 5), 3), ((), None)])
def test_the_first_process_has_the_first_core(
    cores: tuple[int, ...], own: int | None, build: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "share_cores", lambda processes, threads: cores)
    assert build(echo).own_core == own


def test_a_caller_without_the_key_is_nobody(
    build: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Process._run

    def knock_first(process: Process) -> None:
        with pytest.raises((AuthenticationError, EOFError, ConnectionError)):
            process.connect("00" * 32)
        run(process)

    monkeypatch.setattr(Process, "_run", knock_first)
    owner = build(echo)
    owner.tell("hello")
    owner.await_lane("unet")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ((report(lost=True), report(lost=False)), r"worker process 2 (?s:.*)Traceback\nValueError: no\n"),
        ((die(-9), report(lost=True)), "worker process 1 .* one killed by signal 9; what to do"),
        ((report(lost=True), die(3, "out of paper")), "2 .* ended with status 3, which said: out of paper;"),
        ((report(lost=True), listen), "worker process 2 to answer within 0.5 s; got no word"),
        ((listen, listen), "worker process 1, 2 to answer"),
        ((report(lost=True), report(lost=True)), "expected an answer; got Connection closed"),
    ],
)
def test_who_was_the_cause_is_told(parts: tuple[Part, ...], told: str, build: Callable[..., Workers]) -> None:
    owner = build(*parts)
    processes = list(owner._processes)
    with pytest.raises(RankError, match=told):
        owner.guard(lose(owner))
    assert not owner.running
    assert all(each.killed for each in processes)  # type: ignore[attr-defined]
    with pytest.raises(RankError, match="a run that has failed before"):
        owner.guard(lambda: None)


@pytest.mark.parametrize(
    "error", [ValueError("mine"), RuntimeError("mine"), DeviceError("mine"), KeyboardInterrupt()]
)
def test_an_error_of_this_process_ends_all_at_once_and_passes(
    error: BaseException, build: Callable[..., Workers]
) -> None:
    owner = build(listen)

    def work() -> None:
        raise error

    begin = time.monotonic()
    with pytest.raises(type(error)) as caught:
        owner.guard(work)
    assert caught.value is error
    assert time.monotonic() - begin < 0.5
    assert not owner.running


def test_a_failure_instead_of_an_answer_is_told(build: Callable[..., Workers]) -> None:
    owner = build(report(lost=False))
    owner.tell("open")
    with pytest.raises(RankError, match="worker process 1 to run"):
        owner.guard(lambda: owner.await_lane("unet"))


def test_one_that_answers_that_it_lost_another_is_not_the_cause(build: Callable[..., Workers]) -> None:
    owner = build(report(lost=True), die(-9))

    def work() -> None:
        owner.tell("open")
        owner.await_lane("unet")

    with pytest.raises(RankError, match=r"worker process 2 .* one killed by signal 9"):
        owner.guard(work)


def test_an_answer_is_not_waited_for_without_end(build: Callable[..., Workers]) -> None:
    owner = build(listen)
    with pytest.raises(RankError, match=r"worker process 1 to answer within 0\.5 s"):
        owner.guard(lambda: owner.await_lane("unet"))


def fail_to_start(process: Process) -> None:
    process.end(1, "ImportError: no module named torch")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (fail_to_start, "worker process [12] .* status 1, which said: ImportError: no module named torch"),
        (lambda process: None, "2 worker processes within 0 s; got 0"),
    ],
)
def test_workers_that_do_not_start_are_told(
    run: Any, told: str, build: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "_run", run)
    monkeypatch.setattr(workers, "_START_S", 0.2)
    with pytest.raises(RankError, match=told):
        build(echo, echo)


def test_a_group_of_somebody_else_is_left_alone(build: Callable[..., Workers], tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        build(echo).stop()
        assert dist.is_initialized()
        assert not Workers.lead_here()
    finally:
        dist.destroy_process_group()
