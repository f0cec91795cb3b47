"""Compute the attention of SAM's encoders without a table of relative positions for every pair of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Of the attention between all pairs of tokens, so many elements are in memory at a time.
_CHUNK = 2**25
# Up to so many of a block are remembered until its gradients are computed.
_KEPT = 2**24
_KNOWN = ("SamVisionSdpaAttention", "SamHQVisionSdpaAttention")


@contextmanager
def fusing(model: Any) -> Iterator[None]:
    """Let the attention of a SAM or SAM-HQ compute the same, to rounding, in less memory within a block.

    transformers adds a bias for each query and key, made of the query's products with the relative positions
    of rows and columns. Here these products are further dimensions of the query, and a key has a one where
    its row and column are, so that attention needs no bias and its fast forms apply: on GPUs it is sooner in
    bfloat16. On a CPU gradients are computed from the weights of a few heads at a time. Nothing is left on
    the model afterwards. Modules that were asked for another implementation than "sdpa" stay as they are, and
    so does a model without such modules.
    """
    modules = list(model.modules()) if hasattr(model, "modules") else []
    chosen = [each for each in modules if _is_known(each) and "forward" not in vars(each)]
    try:
        for each in chosen:
            vars(each)["forward"] = partial(attend, each)
        yield
    finally:
        for each in chosen:
            vars(each).pop("forward", None)


def attend(attention: Any, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
    """Return what SAM's attention gives for ``hidden_states`` [N, h, w, C], and no weights."""
    tall, wide = hidden_states.shape[1:3]
    made = attention.qkv(hidden_states).flatten(1, 2).unflatten(-1, (3, attention.num_attention_heads, -1))
    query, key, value = made.permute(2, 0, 3, 1, 4)
    scaled, places = query * query.shape[-1] ** -0.5, None
    if attention.use_rel_pos:
        scaled, places = _extend(attention, query, scaled, (tall, wide))
    # CUDA and others have passes of their own that are as good.
    compute: Any = _Attention.apply if query.device.type == "cpu" else _attend
    attended: Tensor = compute(scaled, key, value, places)
    mixed = attended.transpose(1, 2).reshape(*hidden_states.shape[:3], -1)
    return attention.proj(mixed), None


def _is_known(module: nn.Module) -> bool:
    return any(each.__name__ in _KNOWN for each in type(module).__mro__)


def _extend(attention: Any, query: Tensor, scaled: Tensor, sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return queries [N, heads, h · w, d + h + w], and what keys need besides, [h · w, h + w].

    Their products hold those of queries and keys, and those with the relative positions.
    """
    tall, wide = sides
    grid = query.unflatten(2, sides)
    rows = _place(attention, attention.rel_pos_h, tall).to(query.dtype)
    columns = _place(attention, attention.rel_pos_w, wide).to(query.dtype)
    # The bias is not scaled as products of queries and keys are.
    by_row = torch.einsum("nhyxd,ykd->nhyxk", grid, rows)
    by_column = torch.einsum("nhyxd,xkd->nhyxk", grid, columns)
    extended = torch.cat((scaled.unflatten(2, sides), by_row, by_column), dim=-1).flatten(2, 3)
    place = torch.arange(tall * wide, device=query.device)
    ones = (functional.one_hot(place // wide, tall), functional.one_hot(place % wide, wide))
    return extended, torch.cat(ones, dim=-1).to(query.dtype)


def _place(attention: Any, table: Tensor, side: int) -> Tensor:
    """Return the relative positions [side, side, d] of places y and k, which differ by y - k."""
    if len(table) != 2 * side - 1:
        placed: Tensor = attention.get_rel_pos(side, side, table)
        return placed
    # By index it would be the same, but indices would have to come from the CPU each time.
    return table.unfold(0, side, 1).transpose(1, 2).flip(1)


def _widen(key: Tensor, places: Tensor | None) -> Tensor:
    """Return keys [N, heads, tokens, d + h + w] that know their places [tokens, h + w]."""
    return key if places is None else torch.cat((key, places.expand(*key.shape[:2], -1, -1)), dim=-1)


def _attend(query: Tensor, key: Tensor, value: Tensor, places: Tensor | None) -> Tensor:
    """Return softmax(q kᵀ) v; all are filled up with zeros to one size, for the fast forms.

    Those of GPUs take multiples of 8 only.
    """
    key = _widen(key, places)
    size, width = value.shape[-1], key.shape[-1]
    wide = width if key.device.type == "cpu" else -(-width // 8) * 8
    query, key, filled = (
        functional.pad(each, (0, wide - each.shape[-1])) if each.shape[-1] < wide else each
        for each in (query, key, value)
    )
    return functional.scaled_dot_product_attention(query, key, filled, scale=1.0)[..., :size]


class _Attention(torch.autograd.Function):
    """Attention whose passes are made of matrix products, which CPUs have units for."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, places: Tensor | None) -> Tensor:
        heads, tokens = query.shape[:2].numel(), query.shape[2]
        if heads * tokens * key.shape[2] > _KEPT:
            ctx.save_for_backward(query, key, value, places)
            return _attend(query, key, value, places)
        # Autocast would widen the weights.
        with torch.autocast(query.device.type, enabled=False):
            weights = _weigh(query.flatten(0, 1), _widen(key, places).flatten(0, 1))
            mixed: Tensor = torch.bmm(weights, value.flatten(0, 1)).view(*query.shape[:3], -1)
        ctx.save_for_backward(query, key, value, places, weights)
        return mixed

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, places, *known = ctx.saved_tensors
        heads = (each.flatten(0, 1) for each in (query, _widen(key, places), value, wanted))
        step = max(1, _CHUNK // (query.shape[2] * key.shape[2]))
        parts = [
            _derive(key.shape[-1], *each)
            for each in zip(*(each.split(step) for each in (*heads, *known)), strict=True)
        ]
        by_query, by_key, by_value = (
            torch.cat(each).view_as(like)
            for each, like in zip(zip(*parts, strict=True), (query, key, value), strict=True)
        )
        return by_query, by_key, by_value, None


def _weigh(query: Tensor, key: Tensor) -> Tensor:
    products = torch.bmm(query, key.transpose(1, 2))
    return torch.softmax(products, dim=-1, out=products)


def _derive(
    size: int, query: Tensor, key: Tensor, value: Tensor, wanted: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by queries, the first ``size`` dimensions of keys, and values, of some heads.

    All are [heads, tokens, dims]. The other dimensions of keys are places, which nothing moves.
    """
    weights = _weigh(query, key) if weights is None else weights
    value_part = _multiply_transposed(weights, wanted)
    by_weight = torch.bmm(wanted, value.transpose(1, 2))
    # In place: writing as much to other memory takes longer than what is computed.
    derive = torch.ops.aten._softmax_backward_data
    by_product = derive(by_weight, weights, -1, weights.dtype, grad_input=by_weight)
    return torch.bmm(by_product, key), _multiply_transposed(by_product, query[..., :size]), value_part


def _multiply_transposed(weights: Tensor, right: Tensor) -> Tensor:
    """Return weightsᵀ right, without the large factor being turned."""
    return torch.bmm(right.transpose(1, 2), weights).transpose(1, 2)
