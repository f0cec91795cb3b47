"""Start worker processes on this machine, hand them their parts, and end them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import nn

from aerogel.errors import RankError, compose
from aerogel.parallel.cores import share_cores
from aerogel.parallel.layout import Layout
from aerogel.parallel.line import send_tensors
from aerogel.parallel.messages import Failure, Join, OpenLane, TakeModel, open_message, pack_message
from aerogel.parallel.numerics import Numerics
from aerogel.parallel.peers import LostError, reaching
from aerogel.parallel.residency import dump_skeleton, list_weights, needed_weights
from aerogel.parallel.seating import seat_devices

_START_S = 120.0
_GRACE_S = 5.0


class Workers:
    """Own the processes 1 to n of a group whose process 0 is this one."""

    # torch has one default group in a process; these are those that hold it here.
    _leading: ClassVar[WeakSet[Workers]] = WeakSet()

    def __init__(self, devices: Sequence[torch.device], *, threads: int, timeout_s: float) -> None:
        self._devices, self._world, self._timeout_s = devices, len(devices), timeout_s
        self._stopped = False
        self._folder = tempfile.TemporaryDirectory(prefix="aerogel-")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._there: dict[str, list[set[str]]] = {}
        self._bereft: set[int] = set()
        self._cores = share_cores(self._world, threads) if devices[0].type == "cpu" else ()
        self.resident_bytes: dict[str, list[int]] = {}
        try:
            self._start(threads)
            self._join()
        except BaseException:
            self.stop()
            raise

    def _start(self, threads: int) -> None:
        key = secrets.token_bytes(32)
        with Listener(("127.0.0.1", 0), authkey=key) as listener:
            for rank in range(1, self._world):
                settings = {
                    "rank": rank,
                    "world": self._world,
                    "device": str(self._devices[rank]),
                    "threads": threads,
                    "address": listener.address,
                    "key": key.hex(),
                    "path": [each or os.getcwd() for each in sys.path],
                }
                self._processes.append(_start_process(settings, Path(self._folder.name) / f"{rank}.txt"))
            self._connections = self._accept(listener)

    def _accept(self, listener: Listener) -> list[Connection]:
        """Return the workers' connections in the order of their ranks."""
        found: dict[int, Connection] = {}

        def accept() -> None:
            # A closed listener ends it; callers without the key are none of ours.
            with suppress(OSError):
                while len(found) < self._world - 1:
                    with suppress(AuthenticationError, EOFError, ConnectionError):
                        connection = listener.accept()
                        found[open_message(connection.recv_bytes())] = connection

        # In a thread: a worker that ends before it calls would be waited for without end.
        threading.Thread(target=accept, daemon=True).start()
        deadline = time.monotonic() + _START_S
        while len(found) < self._world - 1:
            self._require_alive()
            if time.monotonic() > deadline:
                raise RankError(
                    compose(
                        f"{self._world - 1} worker processes within {_START_S:.0f} s",
                        f"{len(found)}",
                        "close other programs, or use fewer components",
                    )
                )
            time.sleep(0.02)
        return [found[rank] for rank in range(1, self._world)]

    def _join(self) -> None:
        cuda = self._devices[0].type == "cuda"
        store = (Path(self._folder.name) / "store").as_uri()
        backend = "nccl" if cuda else "gloo"
        message = Join(store, backend, self._timeout_s, Numerics.read(), self._cores)
        self.tell(message)
        self._leading.add(self)
        hook = sys.excepthook
        dist.init_process_group(
            message.backend,
            init_method=store,
            rank=0,
            world_size=self._world,
            timeout=timedelta(seconds=self._timeout_s),
        )
        # The group puts a rank before all that this script says of its errors, for good.
        sys.excepthook = hook

    @classmethod
    def lead_here(cls) -> bool:
        """Tell whether the default group of this process is one of workers."""
        return bool(cls._leading)

    @property
    def own_core(self) -> int | None:
        """Return the core that rounds of this process keep to, if any."""
        return self._cores[0] if self._cores else None

    @property
    def running(self) -> bool:
        """Tell whether nothing has failed, and the end has not come."""
        return not self._stopped

    def tell(self, message: Any) -> None:
        """Send ``message`` to every worker."""
        data = pack_message(message)
        with reaching():
            for connection in self._connections:
                connection.send_bytes(data)

    def guard(self, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns; where it fails, end all, and say which worker was the cause.

        Raises:
            RankError: a worker failed or ended.
        """
        if self._stopped:
            remedy = "leave the block and begin a new one"
            raise RankError(compose("running worker processes", "a run that has failed before", remedy))
        try:
            return work()
        except LostError as error:
            blamed = self._find_cause()
            self.stop()
            raise RankError(blamed or str(error)) from error
        except BaseException:
            self.stop()
            raise

    def give_model(self, name: str, module: nn.Module) -> None:
        """Give every worker the skeleton of a denoiser."""
        self.tell(TakeModel(name, dump_skeleton(name, module)))
        self._there[name] = [set() for _ in range(self._world)]

    def open_lane(self, key: str, name: str, module: nn.Module, layout: Layout, stride: int) -> None:
        """Open a lane with every worker and give them the weights that they lack for it."""
        seating = seat_devices(layout, stride)
        lacking: dict[int, list[str]] = {}
        for rank in range(1, self._world):
            needed = needed_weights(module, layout.flow, seating.owned[rank])
            lacking[rank] = [each for each in needed if each not in self._there[name][rank]]
            self._there[name][rank].update(lacking[rank])
        self.tell(OpenLane(key, name, layout, stride, lacking))
        weights = list_weights(module)
        for rank, names in lacking.items():
            send_tensors([weights[each] for each in names], rank, self._devices[0])

    def await_lane(self, name: str) -> None:
        """Wait until every worker has opened the lane; keep what it holds."""
        self.resident_bytes[name] = [self._answer(connection) for connection in self._connections]

    def _answer(self, connection: Connection) -> Any:
        with reaching():
            if not connection.poll(self._timeout_s):
                raise TimeoutError(f"nothing within {self._timeout_s:g} s")
            found = open_message(connection.recv_bytes())
        if isinstance(found, Failure):
            if found.lost:
                self._bereft.add(found.rank)
                raise LostError(_blame(found))
            raise RankError(_blame(found))
        return found

    def _require_alive(self) -> None:
        for rank, process in enumerate(self._processes, start=1):
            if process.poll() is not None:
                raise RankError(self._blame_end(rank, process))

    def _find_cause(self) -> str | None:
        """Return which worker failed by itself, ended without a word, or is silent.

        One that has lost another says so as well, and is not the cause.
        """
        deadline = time.monotonic() + _GRACE_S
        silent = set(range(1, self._world)) - self._bereft
        while silent and time.monotonic() < deadline:
            # Before their last words are read: these are complete then.
            ended = [rank for rank, each in enumerate(self._processes, start=1) if each.poll() is not None]
            for rank, connection in enumerate(self._connections, start=1):
                for failure in _read_failures(connection):
                    if not failure.lost:
                        return _blame(failure)
                    silent.discard(rank)
            for rank in ended:
                if rank in silent:
                    return self._blame_end(rank, self._processes[rank - 1])
            time.sleep(0.05)
        if not silent:
            return None
        names = ", ".join(map(str, sorted(silent)))
        return compose(
            f"worker process {names} to answer within {self._timeout_s:g} s",
            "no word, though it still runs",
            "see what keeps it busy, or raise timeout_s",
        )

    def _blame_end(self, rank: int, process: subprocess.Popen[bytes]) -> str:
        said = (Path(self._folder.name) / f"{rank}.txt").read_text(errors="replace").strip()
        code = process.returncode
        end = f"one killed by signal {-code}" if code < 0 else f"one that ended with status {code}"
        return compose(
            f"worker process {rank} to run until the end",
            f"{end}{', which said: ' + said[-2000:] if said else ''}",
            "check that memory is enough, then run it again",
        )

    def finish(self) -> None:
        """Let what is under way arrive, and end the workers in peace."""
        try:
            self.tell(None)
            for connection in self._connections:
                self._answer(connection)
        finally:
            self.stop(grace_s=_GRACE_S)

    def stop(self, grace_s: float = 0.0) -> None:
        """End the workers, those that do not end by themselves by force, and leave the group."""
        self._stopped = True
        for connection in self._connections:
            with suppress(OSError):
                connection.close()
        deadline = time.monotonic() + grace_s
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
        self._connections, self._processes = [], []
        if self in self._leading:
            self._leading.discard(self)
            if dist.is_initialized():
                dist.destroy_process_group()
        self._folder.cleanup()


def _read_failures(connection: Connection) -> Iterator[Failure]:
    with suppress(EOFError, OSError):
        while connection.poll():
            found = open_message(connection.recv_bytes())
            if isinstance(found, Failure):
                yield found


def _blame(failure: Failure) -> str:
    return compose(
        f"worker process {failure.rank} to run as this one does",
        f"an error there:\n{failure.text.rstrip()}\n",
        "mend what the last line of that says",
    )


def _start_process(settings: dict[str, Any], said: Path) -> subprocess.Popen[bytes]:
    """Start a worker that writes its errors to the file ``said``."""
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "aerogel.parallel.follow"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # Modules come from where they come from here, not from the current folder.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, settings["path"])),
                "PYTHONSAFEPATH": "1",
            },
        )
    # One that has ended already is found when it does not call.
    with suppress(BrokenPipeError), process.stdin or nullcontext() as pipe:
        if pipe is not None:
            pipe.write(json.dumps(settings).encode() + b"\n")
    return process
