"""Turn a model into a basis in which few channels say most of it: other weights, the same function."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.errors import ConfigError, MismatchError, compose
from aerogel.slim.channels import EMBEDDING
from aerogel.slim.families.family import describe, find_family
from aerogel.slim.families.fused import fusing
from aerogel.slim.families.sites import Sites
from aerogel.slim.moments import HeadMoments, list_norms, watch_heads, watch_stream
from aerogel.slim.segmenter import evaluating

# Of the search for the basis of the residual stream: the most steps, and how many are looked back on to see
# whether they still bring more than a share of the loss.
_STEPS = 200
_LOOK_BACK = 20
_WORTH = 2e-3
_RATE = 0.02
# Directions with less than this share of the largest variance count as if they had it.
_FLOOR = 1e-6


def rotate_embedding_(
    model: nn.Module, width: int, images: Iterable[Tensor], *, half: bool = False
) -> list[float]:
    """Turn the residual stream so that its first ``width`` channels say most of what layers read; in place.

    The basis is orthogonal and keeps the mean over channels, so that LayerNorm commutes with it once its own
    weights are in the layer that follows; the outputs of the model stay what they are, to rounding.
    (SliceGPT, arXiv 2401.15024, section 3, turns a stream by its principal components.) It is the basis from
    whose first channels the outputs of all layers that read the stream are recovered best by least squares,
    as a mean over the shares of their squares that are lost. Returns these shares, for both halves of each
    block and the neck.

    ``images`` yields pixels [1, 3, S, S]; ``half`` computes what is looked at in bfloat16.

    Raises:
        ConfigError: the width is not from 2 to below that of the stream.
        DataError: there is no image, or no family knows the model.
        MismatchError: a LayerNorm before attention has a bias where its weight is zero.
    """
    size = describe(model).sizes[EMBEDDING]
    if not 2 <= width < size:
        raise ConfigError(compose(f"a width from 2 to {size - 1}", str(width), "correct the width"))
    sites = find_family(model).locate(model)
    with torch.no_grad(), evaluating(model), fusing(model):
        given = watch_stream(sites, images, half=half)
        _fold_norms_(sites)
        encoder: Any = sites.encoder
        layers = [layer.weight for _, layer in list_norms(sites.blocks)]
        weights = [_exact(each) for each in (*layers, encoder.neck.conv1.weight.flatten(1))]
        read = torch.stack([weight.T @ weight for weight in weights])
    directions, lost = _search(given, read.to(given.device), width - 1)
    with torch.no_grad():
        _turn_embedding_(model, sites, _complete(directions.cpu(), given.mean(0).cpu()))
    return lost


def rotate_heads_(model: nn.Module, images: Iterable[Tensor], *, half: bool = False) -> None:
    """Turn the dimensions of every head so that the first say most, in place; the function stays the same.

    Queries and keys go into the basis of the singular vectors of their products, one basis for all heads of a
    block, as these share the relative positions; values of each head into that of what the projection makes
    of them. ``images`` and ``half`` are as for :func:`rotate_embedding_`.

    Raises:
        DataError: there is no image, or no family knows the model.
    """
    sites = find_family(model).locate(model)
    with torch.no_grad(), evaluating(model), fusing(model):
        moments = watch_heads(sites, images, half=half)
        for block, found in zip(sites.blocks, moments, strict=True):
            layer: Any = block.layer
            _turn_heads_(layer.attn, found)


def weigh_positions(table: Tensor) -> Tensor:
    """Return the second moment [dims, dims] of a table of relative positions [offsets, dims]."""
    offsets = _exact(table) - _exact(table).mean(0)
    return offsets.T @ offsets / len(offsets)


def list_positions(attention: Any) -> list[nn.Parameter]:
    """Return the tables of relative positions [offsets, dims] of an attention, if it has any."""
    return [attention.rel_pos_h, attention.rel_pos_w] if attention.use_rel_pos else []


def _fold_norms_(sites: Sites) -> None:
    """Give all norms weights of one, and what they had to the layers that follow.

    Biases before an MLP go there too. Before attention they stay with the norm: the tokens that fill up
    windows get the bias of the layer that follows, but not the norm's.
    """
    layers: list[Any] = [block.layer for block in sites.blocks]
    shifts = [_carry_bias(layer.layer_norm1, layer.attn.qkv) for layer in layers]
    for layer, shift in zip(layers, shifts, strict=True):
        layer.layer_norm1.bias.copy_(shift)
        layer.mlp.lin1.bias += layer.mlp.lin1.weight @ layer.layer_norm2.bias
        layer.layer_norm2.bias.zero_()
    for norm, reader in list_norms(sites.blocks):
        reader.weight *= norm.weight
        norm.weight.fill_(1.0)


def _carry_bias(norm: Any, layer: Any) -> Tensor:
    """Return the bias of a norm for the time when its weights are in the layer that follows."""
    weight, bias = _exact(layer.weight), _exact(norm.bias)
    wanted, folded = weight @ bias, weight * _exact(norm.weight)
    found: Tensor = torch.linalg.lstsq(folded, wanted[:, None], driver="gelsd").solution[:, 0]
    if float((folded @ found - wanted).norm()) > 1e-6 * float(wanted.norm()):
        raise MismatchError(
            compose(
                "weights of LayerNorm other than zero, to rotate the stream that it reads",
                "weights of zero beside biases that are not",
                "slim without rotation (rotate.photos: 0)",
            )
        )
    return found


def _search(given: Tensor, read: Tensor, count: int) -> tuple[Tensor, list[float]]:
    """Return ``count`` orthonormal directions [C, count] without mean, and the shares that are lost.

    With moments G of what a layer is given, its weights W, R = Wᵀ W and the directions P, the share is
    1 - tr((Pᵀ G P)⁻¹ Pᵀ G R G P) / tr(G R): what least squares from Pᵀ x cannot say of W x.
    """
    size = given.shape[-1]
    mean = given.new_full((size, 1), size**-0.5)
    principal = torch.linalg.eigh(given.mean(0) - 1e3 * given.abs().max() * mean @ mean.T)[1].flip(1)
    totals = (given * read).sum((1, 2)).float()
    products, inner, across = (each.float() for each in (given @ read @ given, given, mean))
    free = principal[:, :count].float().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=_RATE * size**-0.5)

    def orthonormal() -> Tensor:
        found: Tensor = torch.linalg.qr(free - across @ (across.T @ free))[0]
        return found

    def lose(directions: Tensor) -> Tensor:
        seen = directions.T @ inner @ directions
        ridge = 1e-6 * torch.diag_embed(seen.diagonal(dim1=1, dim2=2))
        kept = torch.linalg.solve(seen + ridge, directions.T @ products @ directions)
        shares: Tensor = 1 - kept.diagonal(dim1=1, dim2=2).sum(1) / totals
        return shares

    best, found, history = math.inf, orthonormal().detach(), []
    for step in range(_STEPS):
        directions = orthonormal()
        loss = lose(directions).mean()
        history.append(float(loss.detach()))
        if history[-1] < best:
            best, found = history[-1], directions.detach()
        if step >= _LOOK_BACK and history[-1 - _LOOK_BACK] - best < _WORTH * best:
            break
        (free.grad,) = torch.autograd.grad(loss, free)
        optimiser.step()
    exact = found.double()
    exact = torch.linalg.qr(exact - mean @ (mean.T @ exact))[0]
    return exact, [round(float(share), 6) for share in lose(exact.float())]


def _complete(directions: Tensor, moments: Tensor) -> Tensor:
    """Return the orthogonal basis [C, C], a new channel per column, whose first channels span ``directions``.

    The new channels keep the mean over channels where it is. What spans directions without a mean has none
    over its own channels either, so that LayerNorm finds the same centre once the others are gone. Only the
    direction of least variance tells the two sets apart. Each channel has a part in all directions of its
    set (a cosine transform), so that none sticks out.
    """
    size, count = directions.shape
    mean = directions.new_full((size, 1), size**-0.5)
    taken = torch.cat([mean, directions], 1)
    rest = torch.linalg.svd(taken, full_matrices=True)[0][:, count + 1 :]
    rest = rest @ torch.linalg.eigh(rest.T @ moments @ rest)[1].flip(1)
    first = count + 1
    contrast = torch.cat(
        [mean.new_full((first,), 1 / first), mean.new_full((size - first,), -1 / (size - first))]
    )
    columns = torch.zeros(size, size, dtype=directions.dtype)
    columns[:first, :count] = _waves(first)
    columns[first:, count : size - 2] = _waves(size - first)
    columns[:, size - 2] = contrast / contrast.norm()
    columns[:, size - 1 :] = mean
    return torch.cat([directions, rest, mean], 1) @ columns.T


def _waves(size: int) -> Tensor:
    """Return the orthonormal cosines [size, size - 1] without the constant one."""
    places = torch.arange(size, dtype=torch.float64) + 0.5
    waves = torch.arange(1, size, dtype=torch.float64)
    return torch.cos(math.pi / size * places[:, None] * waves) * math.sqrt(2 / size)


def _turn_embedding_(model: nn.Module, sites: Sites, basis: Tensor) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    norms = {id(norm.weight) for norm, _ in list_norms(sites.blocks)}
    (group,) = find_family(model).describe(model).of_kind(EMBEDDING)
    for axis in group.axes:
        parameter = parameters[axis.parameter]
        if id(parameter) not in norms:
            turned = torch.tensordot(_exact(parameter), basis, dims=([axis.dim], [0]))
            parameter.copy_(turned.movedim(-1, axis.dim))


def _turn_heads_(attention: Any, moments: HeadMoments) -> None:
    heads, size, _ = moments.queries.shape
    # Products are divided by sqrt(dims) before softmax; relative positions meet queries as they are.
    keys = sum((weigh_positions(each) for each in list_positions(attention)), moments.keys.mean(0) / size)
    turn, back = _find_basis(moments.queries.sum(0), _root(keys))
    rows = [attention.qkv.weight, *([] if attention.qkv.bias is None else [attention.qkv.bias])]
    write = _exact(attention.proj.weight).unflatten(1, (heads, size)).permute(1, 2, 0)
    mixes = [_find_basis(each, matrix) for each, matrix in zip(moments.mixed, write, strict=True)]
    turns = torch.stack(
        [turn.expand(heads, -1, -1), back.T.expand(heads, -1, -1), torch.stack([m for m, _ in mixes])]
    )
    for parameter in rows:
        parts = _exact(parameter).unflatten(0, (3, heads, size))
        # [parts, heads, old dims, ...] -> the new dims of each part and head.
        turned = torch.einsum("phde,phd...->phe...", turns, parts)
        parameter.copy_(turned.flatten(0, 2))
    for table in list_positions(attention):
        table.copy_(_exact(table) @ back.T)
    written = torch.stack([inverse @ matrix for (_, inverse), matrix in zip(mixes, write, strict=True)])
    attention.proj.weight.copy_(written.permute(2, 0, 1).flatten(1))


def _find_basis(moments: Tensor, reads: Tensor) -> tuple[Tensor, Tensor]:
    """Return M and its inverse: x M has the directions first that ``reads`` makes most of; x of ``moments``.

    With A the root of the moments and A ``reads`` = U S Vᵀ, M is A⁻¹ U S^½: both sides get an equal size.
    """
    root = _root(moments)
    left, sizes, _ = torch.linalg.svd(root @ reads, full_matrices=True)
    sizes = torch.nn.functional.pad(sizes, (0, len(root) - len(sizes)))
    sizes = sizes.clamp(min=float(sizes.max()) * _FLOOR + 1e-300).sqrt()
    return torch.linalg.solve(root, left * sizes), (left / sizes).T @ root


def _exact(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().double()


def _root(moments: Tensor) -> Tensor:
    """Return the symmetric root of moments, its small eigenvalues raised so that it has an inverse."""
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp(min=float(values.max()) * _FLOOR + 1e-300)
    root: Tensor = vectors * values.sqrt() @ vectors.T
    return root
