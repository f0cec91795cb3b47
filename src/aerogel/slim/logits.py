"""Let fewer dimensions of a head give the logits of attention that all of them gave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDS = 100


@dataclass(frozen=True)
class Projections:
    """Hold what old dimensions are multiplied with to get new ones.

    ``queries`` and ``keys`` are [heads, old, new], ``positions`` [old, new], one for all heads.
    """

    queries: Tensor
    keys: Tensor
    positions: Tensor


def project_logits(queries: Tensor, keys: Tensor, positions: Tensor, kept: Tensor) -> Projections:
    """Return the projections whose logits come nearest to those of all dimensions, by least squares.

    ``queries`` and ``keys`` are second moments [heads, d, d], ``positions`` [d, d] that of the relative
    positions, in the units of keys: a query q meets keys k and positions r in q k and q r. Starting from the
    dimensions ``kept``, projections of queries and of what they meet are solved for in turn, each of which
    brings the expected squared error E (q k - q' k')² + E (q r - q' r')² down.
    """
    size = queries.shape[-1]
    for_queries = torch.eye(size, dtype=queries.dtype)[:, kept].expand(len(queries), -1, -1)
    for_keys, for_positions = _meet(queries, for_queries)
    for _ in range(_ROUNDS):
        # Queries for given keys and positions: M (Nᵀ K N + Lᵀ R L) = K N + R L.
        seen = keys @ for_keys, positions @ for_positions
        inner = for_keys.transpose(1, 2) @ seen[0] + for_positions.T @ seen[1]
        for_queries = _divide(seen[0] + seen[1], inner)
        for_keys, for_positions = _meet(queries, for_queries)
    return Projections(for_queries, for_keys, for_positions)


def _meet(queries: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projections of keys, head by head, and of positions, for all heads, for given queries."""
    across = queries @ chosen
    inner = chosen.transpose(1, 2) @ across
    return _divide(across, inner), _divide(across.sum(0), inner.sum(0))


def _divide(one: Tensor, other: Tensor) -> Tensor:
    """Return one other⁻¹ for symmetric moments, which may be singular."""
    scale = other.diagonal(dim1=-2, dim2=-1)
    ridge = 1e-9 * torch.diag_embed(scale + scale.mean(-1, keepdim=True)) + 1e-30 * torch.eye(other.shape[-1])
    found: Tensor = torch.linalg.solve(other + ridge, one.transpose(-2, -1)).transpose(-2, -1)
    return found
