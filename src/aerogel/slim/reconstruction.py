"""Fit what a pruning left to what was there before it, layer by layer and in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerogel.errors import DataError, MismatchError, compose
from aerogel.slim.channels import name_group
from aerogel.slim.families.family import find_family
from aerogel.slim.families.fused import fusing
from aerogel.slim.families.sites import BlockSites
from aerogel.slim.logits import project_logits
from aerogel.slim.moments import MomentSums, to_exact
from aerogel.slim.plan import Plan
from aerogel.slim.rotation import list_positions, weigh_positions
from aerogel.slim.segmenter import evaluating
from aerogel.slim.surgery import cut_outputs

# So many tokens of all photos go into each fit: more change nothing, as those of a photo are much alike.
_TOKENS = 1 << 17
# So many are multiplied at once, whose products are then added up in float64.
_PART = 1 << 12
# Inputs of less than this share of the mean power are held to as if they had that.
_LEAST_POWER = 0.01


def reconstruct_(
    student: nn.Module,
    before: nn.Module,
    plan: Plan,
    images: Iterable[Tensor],
    *,
    ridge: float = 0.03,
    half: bool = False,
) -> list[float]:
    """Fit the linear layers of the encoder of ``student``, which ``plan`` left of ``before``; in place.

    From the first block to the last each layer is solved by least squares, from what the student's layers so
    far give it to what its outputs were: values and hidden channels to those of ``before``, and the layers
    that write to the residual stream to all that it lacks by then, so that errors do not add up. What went
    is thus said by what stays, as far as it can be. (Section 3.2 of arXiv 1707.06168, for convolutions one
    at a time.) Where heads lose dimensions, queries, keys and relative positions are fitted to those of
    their width that give the logits of ``before`` best, see :func:`project_logits`.

    ``images`` yields pixels [1, 3, S, S] as the models take them, whose tokens are held in memory: the
    residual stream of both models, twice. ``ridge`` holds weights to their values after the cut, scaled as
    one, in shares of the mean square of what they are multiplied with, or of a hundredth of that of all
    inputs where that is more; ``half`` computes attention in bfloat16.

    Returns the squared error of the residual stream after each block, as a share of its mean square.

    Raises:
        DataError: there is no image, or no family knows a model.
        MismatchError: the plan is not for ``before``, or did not make the student.
    """
    family = find_family(student)
    if family.describe(student).sizes != plan.widths:
        raise MismatchError(
            compose("what the plan leaves of the model before", "other widths", "pass apply_plan's result")
        )
    fitting = _Fitting(student, before, plan, ridge, half)
    with torch.no_grad(), evaluating(student), evaluating(before), fusing(student), fusing(before):
        return fitting.run(images)


def measure_photo(student: nn.Module, before: nn.Module) -> int:
    """Return how many bytes :func:`reconstruct_` holds of each photo.

    Raises:
        DataError: no family knows a model.
    """
    channels = [find_family(each).describe(each) for each in (student, before)]
    widths = [each.sizes["embedding"] for each in channels]
    sizes = channels[0].sizes
    mixed = max(
        sizes[name_group("heads", block)] * sizes[name_group("head_dims", block)]
        for block in range(channels[0].blocks)
    )
    sites = find_family(before).locate(before)
    side = sites.shape_outputs()["embedding"][-1]
    return 4 * side**2 * (2 * widths[0] + widths[1] + mixed)


class _Fitting:
    def __init__(self, student: Any, before: Any, plan: Plan, ridge: float, half: bool) -> None:
        self.sites, self.former = (find_family(each).locate(each) for each in (student, before))
        self.parameters = dict(before.named_parameters())
        self.targets = self.parameters | cut_outputs(before, plan)
        self.names = {id(module): name for name, module in before.named_modules()}
        self.plan = plan
        self.kept = torch.tensor(plan.kept["embedding"])
        self.ridge, self.half = ridge, half
        # The residual stream [1, g, g, width] of each photo, in the student and in the model before.
        self.ours: list[Tensor] = []
        self.theirs: list[Tensor] = []
        self.stride = 1

    def run(self, images: Iterable[Tensor]) -> list[float]:
        for pixels in images:
            self.ours.append(_embed(self.sites.encoder, pixels))
            self.theirs.append(_embed(self.former.encoder, pixels))
        if not self.ours:
            raise DataError(compose("at least one image", "none", "pass photos to fit the layers on"))
        tokens = sum(each.shape[1] * each.shape[2] for each in self.ours)
        self.stride = -(-tokens // _TOKENS)
        errors = []
        for number, (ours, theirs) in enumerate(zip(self.sites.blocks, self.former.blocks, strict=True)):
            self._aim_at_logits_(number)
            self._fit_attention_(ours, theirs)
            self._fit_mlp_(ours, theirs)
            errors.append(self._measure())
        self._fit_neck_()
        return errors

    def _fit_attention_(self, ours: BlockSites, theirs: BlockSites) -> None:
        mine: Any = ours.layer
        former: Any = theirs.layer
        self._fit_reader_(
            mine.attn.qkv, mine.layer_norm1, former.attn.qkv, former.layer_norm1, self._count_padding(theirs)
        )
        with self._autocast():
            given = [ours.mix(state).to(state.dtype) for state in self.ours]
            for number, state in enumerate(self.theirs):
                self.theirs[number] = state + former.attn.proj(theirs.mix(state))
        self._fit_(
            mine.attn.proj,
            lambda number: (self._pick(given[number], number), self._lack(*self._show(number))),
        )
        self.ours = [state + mine.attn.proj(mixed) for state, mixed in zip(self.ours, given, strict=True)]

    def _aim_at_logits_(self, number: int) -> None:
        """Let queries and keys be fitted to those of their width whose logits are nearest to the former.

        Relative positions become what belongs to these; tables of zeros stay, as somebody wants them so.
        """
        heads, dims = (list(self.plan.kept[name_group(kind, number)]) for kind in ("heads", "head_dims"))
        layers: list[Any] = [each.blocks[number].layer for each in (self.sites, self.former)]
        own, former = (layer.attn for layer in layers)
        size = former.qkv.weight.shape[0] // (3 * former.num_attention_heads)
        if len(dims) == size:
            return
        tables = [
            (mine, theirs)
            for mine, theirs in zip(list_positions(own), list_positions(former), strict=True)
            if bool(mine.any())
        ]
        queries, keys = self._watch_heads(number, heads)
        positions = sum((weigh_positions(theirs) for _, theirs in tables), torch.zeros_like(keys[0]))
        found = project_logits(queries, keys / size, positions, torch.tensor(dims))
        # Logits are divided by the root of the number of dimensions, so keys make up for it.
        turns = torch.stack([found.queries, found.keys * math.sqrt(len(dims) / size)])
        for name in (f"{self.names[id(former.qkv)]}.{part}" for part in ("weight", "bias")):
            if name in self.targets:
                aim = self.targets[name]
                rows = self.parameters[name].detach().cpu().double().unflatten(0, (3, -1, size))[:2, heads]
                aims = torch.einsum("phde,phd...->phe...", turns, rows).flatten(0, 2)
                self.targets[name] = torch.cat([aims.to(aim), aim[len(aims) :]])
        for mine, theirs in tables:
            mine.copy_(theirs.cpu().double() @ found.positions)

    def _watch_heads(self, number: int, heads: list[int]) -> tuple[Tensor, Tensor]:
        """Return the second moments [heads, dims, dims] of the former queries and centred keys."""
        layer: Any = self.former.blocks[number].layer
        sums = MomentSums(layer.attn.qkv.weight.dtype)
        for state in self.theirs:
            made = layer.attn.qkv(layer.layer_norm1(state)).flatten(0, 2)
            made = made.unflatten(-1, (3, layer.attn.num_attention_heads, -1))
            queries, keys, _ = made[:, :, heads].permute(1, 2, 0, 3)
            sums.add("queries", queries)
            sums.add("keys", keys - keys.mean(1, keepdim=True))
        queries, keys = (sums.found[name].cpu() / len(self.theirs) for name in ("queries", "keys"))
        return queries, keys

    def _fit_mlp_(self, ours: BlockSites, theirs: BlockSites) -> None:
        mine: Any = ours.layer
        former: Any = theirs.layer
        self._fit_reader_(mine.mlp.lin1, mine.layer_norm2, former.mlp.lin1, former.layer_norm2)
        with self._autocast():
            for number, state in enumerate(self.theirs):
                self.theirs[number] = state + former.mlp(former.layer_norm2(state))

        def widen(states: Tensor) -> Tensor:
            found: Tensor = mine.mlp.act(mine.mlp.lin1(mine.layer_norm2(states)))
            return found

        def show(number: int) -> tuple[Tensor, Tensor]:
            states, aims = self._show(number)
            return widen(states), self._lack(states, aims)

        self._fit_(mine.mlp.lin2, show)
        self.ours = [state + mine.mlp.lin2(widen(state)) for state in self.ours]

    def _fit_neck_(self) -> None:
        encoders: list[Any] = [each.encoder for each in (self.sites, self.former)]
        mine, former = (each.neck.conv1 for each in encoders)
        weight = former.weight.flatten(1)

        def show(number: int) -> tuple[Tensor, Tensor]:
            ours, theirs = self._show(number)
            return ours, functional.linear(theirs, weight)

        self._fit_(mine, show)

    def _count_padding(self, block: BlockSites) -> int:
        """Return how many tokens a photo gets that only fill up windows."""
        side = self.theirs[0].shape[1]
        return (-(-side // block.window) * block.window) ** 2 - side**2 if block.window else 0

    def _fit_reader_(
        self, layer: Any, norm: Any, former: nn.Module, former_norm: Any, padding: int = 0
    ) -> None:
        """Fit a layer that reads the residual stream to what stays of the former layer's outputs.

        ``padding`` is how many tokens of a photo fill up windows: zeros after the norm, which attention sees.
        """
        name = self.names[id(former)]
        weight, bias = self.targets[f"{name}.weight"], self.targets.get(f"{name}.bias")

        def show(number: int) -> tuple[Tensor, Tensor]:
            ours, theirs = self._show(number)
            tokens = self.ours[number].shape[1] ** 2 + padding
            empty = len(range(number % self.stride, tokens, self.stride)) - len(ours)
            given, former_given = (
                functional.pad(through(states), (0, 0, 0, empty))
                for through, states in ((norm, ours), (former_norm, theirs))
            )
            return given, functional.linear(former_given, weight, bias)

        self._fit_(layer, show)

    def _pick(self, states: Tensor, number: int) -> Tensor:
        """Return the tokens [tokens, width] of a photo that go into fits."""
        return states.flatten(0, -2)[number % self.stride :: self.stride]

    def _show(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a photo's picked tokens of the residual stream, in the student and in the model before."""
        return self._pick(self.ours[number], number), self._pick(self.theirs[number], number)

    def _want(self, theirs: Tensor) -> Tensor:
        return theirs[..., self.kept.to(theirs.device)]

    def _lack(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return self._want(theirs) - ours

    def _measure(self) -> float:
        wrong = sum(self._lack(*each).square().sum() for each in zip(self.ours, self.theirs, strict=True))
        return float(wrong / sum(self._want(theirs).square().sum() for theirs in self.theirs))

    def _fit_(self, layer: Any, show: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        """Solve for a linear layer, or a convolution of 1 x 1, from its inputs and wanted outputs.

        ``show`` gives those of the picked tokens of a photo.
        """
        width, kind = layer.weight.shape[1], layer.weight.dtype
        former = to_exact(layer.weight.detach().flatten(1).T)
        inputs = former.new_zeros(width + 1, width + 1)
        outputs = former.new_zeros(width + 1, layer.weight.shape[0])
        shown: list[tuple[Tensor, Tensor]] = []
        for number in range(len(self.ours)):
            shown.append(show(number))
            if number + 1 < len(self.ours) and sum(len(given) for given, _ in shown) < _PART:
                continue
            given, wanted = (torch.cat(each).to(kind) for each in zip(*shown, strict=True))
            shown.clear()
            given = functional.pad(given, (0, 1), value=1.0)
            inputs += to_exact(given.T @ given)
            outputs += to_exact(given.T @ wanted)
        solved = _solve(inputs, outputs, former, self.ridge, biased=layer.bias is not None)
        layer.weight.copy_(solved[:width].T.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(solved[width])

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.ours[0].device.type, torch.bfloat16, enabled=self.half)


def _solve(inputs: Tensor, outputs: Tensor, former: Tensor, ridge: float, *, biased: bool) -> Tensor:
    """Return the weights [inputs, outputs] of least squares, held to the ``former``; the bias comes last.

    The former ones are held to in the size that suits best: after a cut LayerNorm gives inputs of another.
    """
    width = len(former)
    if not biased:
        inputs, outputs = inputs[:width, :width], outputs[:width]
    former = former * _scale(inputs, outputs, former)
    powers = inputs.diagonal()[:width]
    # What hardly any of these tokens has would be free to answer for them, and be far too much for others.
    held = ridge * powers.clamp(min=_LEAST_POWER * float(powers.mean()) or 1.0)
    pull = torch.zeros_like(inputs)
    pull.diagonal()[:width] = held
    wanted = outputs.clone()
    wanted[:width] += held[:, None] * former
    found: Tensor = torch.linalg.solve(inputs + pull, wanted)
    return found


def _scale(inputs: Tensor, outputs: Tensor, former: Tensor) -> float:
    """Return what weights are best multiplied with, whatever the bias is."""
    width = len(former)
    inner, aims = inputs[:width, :width], outputs[:width]
    if len(inputs) > width:
        inner = inner - torch.outer(inputs[:width, width], inputs[width, :width]) / inputs[width, width]
        aims = aims - torch.outer(inputs[:width, width], outputs[width]) / inputs[width, width]
    power = float((former * (inner @ former)).sum())
    return max(0.0, float((former * aims).sum()) / power) if power > 0 else 1.0


def _embed(encoder: Any, pixels: Tensor) -> Tensor:
    states: Tensor = encoder.patch_embed(pixels)
    return states if encoder.pos_embed is None else states + encoder.pos_embed
