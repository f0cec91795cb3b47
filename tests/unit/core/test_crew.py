"""One process alone does all; several share without leaving anything out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aerogel.core.crew import Crew
from aerogel.errors import RankError


def test_one_process_is_a_crew() -> None:
    crew = Crew()
    assert crew.leads and not Crew(2, 1).leads
    parameter = torch.nn.Parameter(torch.ones(2))
    crew.add_gradients_([parameter])
    assert parameter.grad is None
    assert crew.gather_sums({"loss": 2.0}) == {"loss": 2.0}
    assert crew.gather(["a"]) == ["a"]
    crew.require_agreement("anything")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("photos", [1, 4, 5])
def test_shares_make_up_the_batch(size: int, photos: int) -> None:
    batch = np.arange(photos) * 3
    shares = [Crew(size, rank).take_share(batch) for rank in range(size)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1 and lengths[0] == max(lengths)
    turns = [Crew(size, rank).take_turns(batch.tolist()) for rank in range(size)]
    assert sorted(item for turn in turns for item in turn) == batch.tolist()


def test_a_broken_connection_names_the_error_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer\nmore")

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broken)
    with pytest.raises(RankError, match="Connection closed by peer; what to do: look at the error"):
        Crew(2, 1).tell("x")
