"""Logits of fewer dimensions are as near to the former ones as they can be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerogel.slim.logits import Projections, project_logits

HEADS, SIZE = 3, 8


def draw(seed: int, rank: int = SIZE, heads: int = HEADS) -> Tensor:
    """Return vectors [heads, 200, 8] that span ``rank`` dimensions."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(heads, 200, rank, generator=generator, dtype=torch.float64)
    return low @ torch.randn(heads, rank, SIZE, generator=generator, dtype=torch.float64)


def moments(vectors: Tensor) -> Tensor:
    return vectors.transpose(1, 2) @ vectors / vectors.shape[1]


def error(found: Projections, queries: Tensor, keys: Tensor, positions: Tensor) -> tuple[float, float]:
    """Return the mean squared errors of both kinds of logits, over all pairs."""
    fewer = queries @ found.queries
    wrong = queries @ keys.transpose(1, 2) - fewer @ (keys @ found.keys).transpose(1, 2)
    misplaced = queries @ positions[0].T - fewer @ (positions[0] @ found.positions).T
    return float(wrong.square().mean()), float(misplaced.square().mean())


def project(queries: Tensor, keys: Tensor, positions: Tensor, kept: list[int]) -> Projections:
    return project_logits(moments(queries), moments(keys), moments(positions)[0], torch.tensor(kept))


def test_shapes() -> None:
    found = project(draw(0), draw(1), draw(2, heads=1), [1, 4, 5])
    assert found.queries.shape == found.keys.shape == (HEADS, SIZE, 3) and found.positions.shape == (SIZE, 3)


def test_all_dimensions_give_the_same_logits() -> None:
    given = draw(0), draw(1), draw(2, heads=1)
    assert max(error(project(*given, list(range(SIZE))), *given)) < 1e-9


def test_without_positions_no_projection_is_better() -> None:
    queries, keys, none = draw(0), draw(1), torch.zeros(1, 5, SIZE, dtype=torch.float64)
    found = project(queries, keys, none, [0, 3, 6])
    for head in range(HEADS):
        # Eckart and Young: the best of rank 3 leaves the other singular values.
        rest = torch.linalg.svdvals(queries[head] @ keys[head].T)[3:].square().sum() / 200**2
        fewer = (queries[head] @ found.queries[head]) @ (keys[head] @ found.keys[head]).T
        assert float((queries[head] @ keys[head].T - fewer).square().mean()) == pytest.approx(
            float(rest), rel=1e-2
        )


def test_a_low_rank_is_found_from_any_start() -> None:
    queries, keys = draw(0, rank=3), draw(1)
    # Keys are free, but positions are one for all heads, which see them through the same three dimensions.
    queries = queries[:1].expand(HEADS, -1, -1) * torch.tensor([1.0, -2.0, 0.5]).double()[:, None, None]
    given = queries, keys, draw(2, heads=1)
    for kept in ([0, 1, 2], [5, 6, 7]):
        assert max(error(project(*given, kept), *given)) < 1e-5


@pytest.mark.parametrize("share", [0.1, 1.0, 10.0])
def test_more_dimensions_and_both_sides_count(share: float) -> None:
    queries, keys, positions = draw(0), draw(1), share * draw(2, heads=1)
    errors = [
        sum(error(project(queries, keys, positions, list(range(n))), queries, keys, positions))
        for n in (2, 4, 6)
    ]
    assert errors[0] > errors[1] > errors[2]
    chosen = torch.eye(SIZE, dtype=torch.float64)[:, :4]
    plain = Projections(chosen.expand(HEADS, -1, -1), chosen.expand(HEADS, -1, -1), chosen)
    assert errors[1] < 0.7 * sum(error(plain, queries, keys, positions))


def test_silent_heads_do_no_harm() -> None:
    queries = draw(0)
    queries[1] = 0.0
    given = queries, draw(1), torch.zeros(1, 5, SIZE, dtype=torch.float64)
    found = project(*given, [0, 1, 2])
    assert all(bool(torch.isfinite(each).all()) for each in (found.queries, found.keys, found.positions))
