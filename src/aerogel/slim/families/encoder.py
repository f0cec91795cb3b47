"""The plain vision transformer of SAM: where its channels are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from aerogel.errors import MismatchError, compose
from aerogel.slim.channels import Axis, Channels, Group, name_group

_NORMS = ("layer_norm1", "layer_norm2")
# Axes of the neck that the residual stream does not reach, and of the inputs.
_FIXED = {
    "patch_embed.projection.weight": (1, 2, 3),
    "neck.conv1.weight": (0, 2, 3),
    "neck.conv2.weight": (0, 1, 2, 3),
    "neck.layer_norm1.weight": (0,),
    "neck.layer_norm1.bias": (0,),
    "neck.layer_norm2.weight": (0,),
    "neck.layer_norm2.bias": (0,),
}


@dataclass(frozen=True)
class Block:
    """Hold the widths of one transformer block and which parameters it has."""

    heads: int
    head_dims: int
    mlp: int
    qkv_bias: bool
    rel_pos: bool


def read_widths(encoder: Any) -> dict[str, int]:
    """Return the widths of the groups of an encoder, from its modules.

    Raises:
        MismatchError: a block's heads do not divide its projection into queries, keys and values.
    """
    widths = {name_group("embedding"): int(encoder.patch_embed.projection.weight.shape[0])}
    for index, layer in enumerate(encoder.layers):
        heads, rows = int(layer.attn.num_attention_heads), int(layer.attn.qkv.weight.shape[0])
        if heads < 1 or rows % (3 * heads):
            raise MismatchError(
                compose(
                    "queries, keys and values of the same width for every head",
                    f"{rows} rows for {heads} heads in block {index}",
                    "correct num_attention_heads",
                )
            )
        widths[name_group("heads", index)] = heads
        widths[name_group("head_dims", index)] = rows // (3 * heads)
        widths[name_group("mlp", index)] = int(layer.mlp.lin1.weight.shape[0])
    return widths


def describe_encoder(
    family: str, encoder: nn.Module, prefix: str, widths: Mapping[str, int], readers: tuple[Axis, ...] = ()
) -> Channels:
    """Return the channels of an encoder that has these ``widths`` or would have them.

    ``prefix`` is the encoder's place in the model; ``readers`` are axes outside it that take the residual
    stream.
    """
    embedding: list[Axis] = [*_embedding_axes(encoder, prefix), *readers]
    groups: list[Group] = []
    blocks: Any = encoder.layers
    for index, layer in enumerate(blocks):
        block = Block(
            widths[name_group("heads", index)],
            widths[name_group("head_dims", index)],
            widths[name_group("mlp", index)],
            qkv_bias=layer.attn.qkv.bias is not None,
            rel_pos=bool(layer.attn.use_rel_pos),
        )
        place = f"{prefix}layers.{index}."
        embedding += _block_embedding_axes(place)
        groups += _block_groups(place, index, block)
    first = Group(name_group("embedding"), widths[name_group("embedding")], tuple(embedding))
    return Channels(family, prefix, (first, *groups), frozenset(_fixed_axes(encoder, prefix)))


def _embedding_axes(encoder: Any, prefix: str) -> Iterator[Axis]:
    yield Axis(f"{prefix}patch_embed.projection.weight", 0)
    yield Axis(f"{prefix}patch_embed.projection.bias", 0)
    if encoder.pos_embed is not None:
        yield Axis(f"{prefix}pos_embed", 3)
    yield Axis(f"{prefix}neck.conv1.weight", 1)


def _block_embedding_axes(place: str) -> Iterator[Axis]:
    for norm in _NORMS:
        yield Axis(f"{place}{norm}.weight", 0)
        yield Axis(f"{place}{norm}.bias", 0)
    yield Axis(f"{place}attn.qkv.weight", 1)
    yield Axis(f"{place}attn.proj.weight", 0)
    yield Axis(f"{place}attn.proj.bias", 0)
    yield Axis(f"{place}mlp.lin1.weight", 1)
    yield Axis(f"{place}mlp.lin2.weight", 0)
    yield Axis(f"{place}mlp.lin2.bias", 0)


def _block_groups(place: str, index: int, block: Block) -> Iterator[Group]:
    # Rows of the fused projection: all queries, then all keys, then all values; each head by head.
    heads: list[Axis] = []
    dims: list[Axis] = []
    for role, offset in (("query", 0), ("key", 1), ("value", 2)):
        start = offset * block.heads * block.head_dims
        for name in ("weight", "bias") if block.qkv_bias else ("weight",):
            parameter = f"{place}attn.qkv.{name}"
            heads.append(Axis(parameter, 0, start, block=block.head_dims, role=role))  # type: ignore[arg-type]
            dims.append(Axis(parameter, 0, start, repeats=block.heads, role=role))  # type: ignore[arg-type]
    heads.append(Axis(f"{place}attn.proj.weight", 1, block=block.head_dims))
    dims.append(Axis(f"{place}attn.proj.weight", 1, repeats=block.heads))
    if block.rel_pos:
        # The tables serve all heads.
        dims += [Axis(f"{place}attn.rel_pos_{side}", 1) for side in ("h", "w")]
    hidden = (
        Axis(f"{place}mlp.lin1.weight", 0),
        Axis(f"{place}mlp.lin1.bias", 0),
        Axis(f"{place}mlp.lin2.weight", 1),
    )
    yield Group(name_group("heads", index), block.heads, tuple(heads))
    yield Group(name_group("head_dims", index), block.head_dims, tuple(dims))
    yield Group(name_group("mlp", index), block.mlp, hidden)


def _fixed_axes(encoder: Any, prefix: str) -> Iterator[tuple[str, int]]:
    for name, dims in _FIXED.items():
        yield from ((prefix + name, dim) for dim in dims)
    if encoder.pos_embed is not None:
        yield from ((f"{prefix}pos_embed", dim) for dim in (0, 1, 2))
    for index, layer in enumerate(encoder.layers):
        if layer.attn.use_rel_pos:
            yield from ((f"{prefix}layers.{index}.attn.rel_pos_{side}", 0) for side in ("h", "w"))
