"""What a worker process does: it joins the group, takes parts of denoisers, and runs rounds as it is told."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from aerogel.parallel.cores import keep_to
from aerogel.parallel.line import Listener, receive_tensor
from aerogel.parallel.messages import (
    Failure,
    Join,
    OpenLane,
    TakeModel,
    Turn,
    open_message,
    pack_message,
)
from aerogel.parallel.peers import LostError
from aerogel.parallel.ranks import Rank
from aerogel.parallel.residency import count_weights, list_weights, load_skeleton, place_weights
from aerogel.parallel.wiring import Wiring


class Follower:
    """Hold a worker's denoisers and lanes."""

    def __init__(self, rank: int, where: torch.device) -> None:
        self._rank, self._where = rank, where
        self._models: dict[str, nn.Module] = {}
        self._wirings: dict[str, Wiring] = {}
        self._lanes: dict[str, tuple[str, Listener]] = {}
        self._ranks: list[Rank] = []

    def take_model(self, message: TakeModel) -> None:
        """Take a denoiser's skeleton."""
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane[0] != message.name}
        module = load_skeleton(message.skeleton, self._where)
        self._models[message.name] = module
        self._wirings[message.name] = Wiring(module, self._where)

    def open_lane(self, message: OpenLane) -> int:
        """Take what a lane's parts lack; return the bytes of all weights here."""
        module = self._models[message.model]
        like = list_weights(module)
        lacking = message.weights.get(self._rank, [])
        place_weights(module, {name: receive_tensor(like[name], self._where) for name in lacking})
        runner = Rank(self._wirings[message.model], message.layout, message.stride, led=True)
        self._ranks.append(runner)
        self._lanes[message.key] = message.model, Listener(runner, self._where)
        resident = {id(each): name for name, each in list_weights(module).items() if not each.is_meta}
        return count_weights(module, resident.values())

    def take_turn(self, turn: Turn) -> None:
        """Run a round."""
        model, listener = self._lanes[turn.lane]
        listener.run(turn, self._models[model].forward)

    def finish(self) -> None:
        """Let what is under way arrive."""
        for rank in self._ranks:
            rank.finish()


def serve(connection: Connection, rank: int, world: int, where: torch.device) -> None:
    """Do what the first process says until it closes the connection."""
    follower = Follower(rank, where)
    while True:
        try:
            message = open_message(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        if isinstance(message, Turn):
            follower.take_turn(message)
        elif isinstance(message, OpenLane):
            connection.send_bytes(pack_message(follower.open_lane(message)))
            # A collection that walks through all models and libraries would make a round wait.
            gc.collect()
            gc.freeze()
        elif isinstance(message, TakeModel):
            follower.take_model(message)
        elif isinstance(message, Join):
            message.numerics.apply()
            dist.init_process_group(
                message.backend,
                init_method=message.store,
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=message.timeout_s),
            )
            # Now: the threads that move data are there already, and stay free.
            if message.cores:
                keep_to(message.cores[rank])
        else:
            follower.finish()
            connection.send_bytes(pack_message(None))


def main() -> None:
    """Run a worker; the settings come as one line of JSON on standard input."""
    # Ctrl-C reaches the whole group of processes: the first one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    sys.path[:] = settings["path"]
    torch.set_num_threads(settings["threads"])
    torch.set_grad_enabled(False)
    where = torch.device(settings["device"])
    if where.type == "cuda":
        torch.cuda.set_device(where)
    connection = Client(tuple(settings["address"]), authkey=bytes.fromhex(settings["key"]))
    connection.send_bytes(pack_message(settings["rank"]))
    try:
        serve(connection, settings["rank"], settings["world"], where)
        status = 0
    except BaseException as error:  # noqa: BLE001 - told to the first process, which raises it
        status = 1
        lost = isinstance(error, LostError)
        with suppress(OSError):
            connection.send_bytes(pack_message(Failure(settings["rank"], traceback.format_exc(), lost)))
    # At once: the end of a process group may wait for peers that are no more.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
