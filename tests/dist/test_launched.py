"""Ranks of a launched script stay in step, whatever their random numbers and whoever cancels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what the ranks of a script under torchrun have."""
    folder = tmp_path_factory.mktemp("launched")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [*command, "--master-port", str(port), "-m", "tests.dist.launched", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300.0,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.fixture
def own(ranks: Found) -> Found:
    return [rank["own"] for rank in ranks]


def test_every_process_takes_a_part(own: Found) -> None:
    assert [rank["config"] for rank in own] == [2, 2]
    assert not any(rank["left"] for rank in own)


def test_all_ranks_have_what_the_simulator_has(own: Found) -> None:
    for rank in own:
        assert rank["seeded"] == rank["second block"] == rank["expected"]


def test_unseeded_images_differ_from_each_other_and_not_among_ranks(own: Found) -> None:
    first, second = own[0]["unseeded"]
    assert first != second
    assert own[1]["unseeded"] == [first, second]
    assert own[1]["drawn after"] == own[0]["drawn after"]


def test_seeds_of_their_own_do_not_part_the_ranks(own: Found) -> None:
    assert own[1]["seeded apart"] == own[0]["seeded apart"]


def test_rank_zero_gives_an_image_up_for_all(own: Found) -> None:
    """The others learn of it in the step after, whose estimate nobody wants, and stop."""
    assert own[0]["interrupted"] == [0, 1, 2]
    assert own[1]["interrupted"] == [0, 1, 2, 3]


def test_bytes_sent_are_those_planned(own: Found) -> None:
    assert own[0]["planned"] == own[1]["planned"] == sum(rank["sent"] for rank in own)


def test_a_process_group_of_the_scripts_own_is_used_and_left(ranks: Found) -> None:
    for rank in ranks:
        assert rank["ours"]["stopped"]
        assert rank["ours"]["parallel"] == rank["ours"]["expected"]
        assert rank["ours"]["left"]
