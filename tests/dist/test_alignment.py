"""Two processes align a student as one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.errors import MismatchError
from aerogel.slim.checkpoint import read_epochs
from tests.dist.group import run_group
from tests.unit.slim.lessons import CONFIG, Pictures, losses, make, run, weights

# Batches of 2, 2 and 1: in the last, the second process has no photo.
PHOTOS = Pictures(5)


def join() -> None:
    """Tell accelerate of the group, as torchrun does."""
    names = {"RANK": dist.get_rank(), "LOCAL_RANK": dist.get_rank(), "WORLD_SIZE": dist.get_world_size()}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}


def on_rank(work: Path) -> Any:
    join()
    made = make("bottleneck")
    # The first part of the run is lost with the process, but for its checkpoint.
    cut = run(make("bottleneck"), work, photos=PHOTOS, stop=4, save_steps=2)
    dist.barrier()
    states = run(made, work, photos=PHOTOS)
    values = {name: each.numpy() for name, each in weights(made[0]).items()}
    try:
        run(make("output"), work / "odd", photos=PHOTOS, seed=dist.get_rank())
    except MismatchError as refusal:
        return losses(cut), losses(states), values, str(refusal)
    return losses(cut), losses(states), values, ""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    alone = make("bottleneck")
    wanted = losses(run(alone, tmp_path / "alone", photos=PHOTOS))
    ranks = run_group(2, on_rank, tmp_path / "together")
    for cut, resumed, values, refusal in ranks:
        assert sorted(cut) == [1, 2, 3, 4] and sorted(resumed) == list(range(3, 10))
        for step, (loss, terms) in {**cut, **resumed}.items():
            assert loss == pytest.approx(wanted[step][0], rel=1e-10)
            assert terms == pytest.approx(wanted[step][1], rel=1e-10)
        for name, each in weights(alone[0]).items():
            # Adam divides by the gradient's size, so that sums in another order show where it is tiny.
            assert abs(values[name] - each.numpy()).max() < 1e-9, name
        assert "processes that train the same" in refusal
    assert ranks[0][1] == ranks[1][1]
    assert all((ranks[0][2][name] == ranks[1][2][name]).all() for name in ranks[0][2])
    epochs = [read_epochs(tmp_path / name / CHECKPOINT_NAME) for name in ("alone", "together")]
    assert epochs[1] == [pytest.approx(each, rel=1e-10) for each in epochs[0]]
    assert CONFIG.batch_size == 2
