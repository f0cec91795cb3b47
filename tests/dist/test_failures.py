"""Whatever fails, and wherever: a clear error soon, and no process left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aerogel.errors import AerogelError, DeviceError, MismatchError, RankError
from aerogel.parallel import parallelize, simulate
from tests.dist.pipelines import Sealing, VectorPipeline, build_fragile, build_pipeline, list_children

SOON_S = 30.0
PATIENCE_S = 300.0  # to start processes on a busy machine


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    torch.set_num_threads(1)
    before = list_children()
    yield
    assert set(list_children()) <= set(before)
    assert not dist.is_initialized()
    assert torch.get_num_threads() == 1
    assert sys.excepthook is sys.__excepthook__


def is_plain(pipe: VectorPipeline) -> bool:
    """Tell whether nothing stands in for anything of the pipeline."""
    return not any("forward" in vars(each) for each in pipe.transformer.modules()) and not {
        "step",
        "set_timesteps",
    } & set(vars(pipe.scheduler))


@contextmanager
def failing_soon(kind: type[AerogelError], match: str) -> Iterator[None]:
    begin = time.monotonic()
    with pytest.raises(kind, match=match):
        yield
    assert time.monotonic() - begin < SOON_S


def send_at_step_two(sent: signal.Signals) -> Callable[[int], None]:
    """Return a callback that sends a signal to the last worker."""

    def send(step: int) -> None:
        if step == 2:
            os.kill(list_children()[-1], sent)

    return send


def test_a_killed_worker_is_named_and_the_run_is_over() -> None:
    pipe = build_pipeline()
    with parallelize(pipe, 3, threads=1):
        with failing_soon(RankError, "worker process [12] to run .* one killed by signal 9"):
            pipe(callback=send_at_step_two(signal.SIGKILL))
        assert not list_children()
        with failing_soon(RankError, "a run that has failed before"):
            pipe()
    assert is_plain(pipe)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("raise", r"worker process 1(?s:.*)in fail\n(?s:.*)ValueError: the moon is in the wrong quarter"),
        ("exit", "worker process 1 .* ended with status 3"),
        ("sleep", "worker process 1 to answer within 2 s"),
    ],
)
def test_what_went_wrong_in_a_worker_is_told(way: str, told: str) -> None:
    pipe = build_fragile(way)
    with parallelize(pipe, 2, threads=1, timeout_s=2.0), failing_soon(RankError, told):
        pipe()
    assert is_plain(pipe)


def test_a_stopped_worker_is_not_waited_for_without_end() -> None:
    pipe = build_pipeline()
    told = "worker process [12] to answer within 2 s"
    with parallelize(pipe, 3, threads=1, timeout_s=2.0), failing_soon(RankError, told):
        pipe(callback=send_at_step_two(signal.SIGSTOP))
    assert is_plain(pipe)


def test_an_error_of_this_process_is_raised_as_it_is() -> None:
    pipe = build_pipeline()

    def complain(*_: Any) -> None:
        raise ArithmeticError("not here")

    with pytest.raises(ArithmeticError, match="not here"), parallelize(pipe, 2, threads=1):
        pipe()
        pipe.transformer.blocks[0].linear.forward = complain
        pipe()
    del pipe.transformer.blocks[0].linear.forward
    assert is_plain(pipe)


def test_a_denoiser_that_stays_here_is_refused() -> None:
    pipe = build_pipeline()
    pipe.transformer.blocks[0].register_forward_hook(lambda *_: None)
    with parallelize(pipe, 2, threads=1), failing_soon(DeviceError, "one that cannot be pickled"):
        pipe()
    assert is_plain(pipe)


def test_an_estimate_in_an_unknown_object_is_refused() -> None:
    pipe = build_pipeline()
    pipe.transformer = Sealing()
    with parallelize(pipe, 2, threads=1), failing_soon(DeviceError, "got Sealed"):
        pipe()
    assert is_plain(pipe)


def test_one_block_at_a_time() -> None:
    pipe, other = build_pipeline(), build_pipeline()
    with parallelize(pipe, 2, threads=1) as run:
        first = pipe()
        for again in (parallelize(pipe, 2), simulate(pipe, 2)):
            with failing_soon(MismatchError, "a VectorPipeline inside of one"), again:
                pass
        with failing_soon(MismatchError, "one block with workers at a time"), parallelize(other, 2):
            pass
        with simulate(other, 2):
            assert torch.equal(other(), first)
        with run.paused(), simulate(pipe, 2):
            assert torch.equal(pipe(), first)
        assert torch.equal(pipe(), first)


@pytest.fixture
def scripts() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return a list for scripts, which end with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.communicate()


def start(which: str, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.dist.failing", which, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def await_path(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.05)
    return path.read_text(encoding="utf-8")


def await_end(process: int) -> None:
    deadline = time.monotonic() + SOON_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline, f"process {process} is left"
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_script_that_is_ended_leaves_no_worker(
    sent: signal.Signals, scripts: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start("wait", tmp_path)
    scripts.append(process)
    workers = await_path(tmp_path / "workers").split()
    assert workers
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as the terminal does
    else:
        process.send_signal(sent)
    _, said = process.communicate(timeout=SOON_S)
    assert process.returncode != 0
    if sent == signal.SIGINT:
        assert b"KeyboardInterrupt" in said
    for worker in workers:
        await_end(int(worker))


def test_a_launched_rank_that_is_killed_is_missed_by_all_others(
    scripts: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    world = 3
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    scripts += [start("lose", tmp_path, **meeting, RANK=str(rank)) for rank in range(world)]
    await_path(tmp_path / "killed")
    ends = []
    for process in scripts:
        process.communicate(timeout=SOON_S)
        ends.append(process.returncode)
    assert ends == [1, 1, -signal.SIGKILL]
    for rank in range(world - 1):
        told = (tmp_path / f"{rank}.txt").read_text(encoding="utf-8")
        assert told.startswith("LostError: expected an answer of the other processes; got ")
