"""One process alone does all; several share without leaving anything out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aerogel.slim.crew import Crew, join_crew


def test_one_process_is_a_crew() -> None:
    crew = join_crew("cpu")
    assert crew == Crew(1, 0)
    parameter = torch.nn.Parameter(torch.ones(2))
    crew.add_gradients_([parameter])
    assert parameter.grad is None
    assert crew.gather_sums({"loss": 2.0}) == {"loss": 2.0}
    crew.require_agreement("anything")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("photos", [1, 4, 5])
def test_shares_make_up_the_batch(size: int, photos: int) -> None:
    batch = np.arange(photos) * 3
    shares = [Crew(size, rank).take_share(batch) for rank in range(size)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1 and lengths[0] == max(lengths)
