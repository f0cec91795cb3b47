"""A gate at 1 changes nothing, at 0 it masks; its derivative is what the readers of a channel say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.slim import describe, identity_plan, mask_channels
from aerogel.slim.channels import Group
from aerogel.slim.gates import hang_gates
from aerogel.slim.plan import Plan
from tests.unit.slim.tiny import apart, build, embed, pixels, segment

KINDS = ("embedding", "blocks.1.mlp", "blocks.1.head_dims", "blocks.1.heads")


def find(model: nn.Module, name: str) -> Group:
    return next(group for group in describe(model).groups if group.name == name)


def project(model: Any, seed: int = 3) -> Tensor:
    """Return the embedding of one image along a random direction."""
    output = getattr(model, "vision_encoder", model)(pixels(count=1)).last_hidden_state
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=output.dtype)
    return (output * direction).sum()


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
def test_gates_of_one_change_nothing(family: str) -> None:
    model = build(family)
    before = embed(model), segment(model)
    with hang_gates(model, describe(model).groups) as gates:
        assert apart(before[0], embed(model)) < 1e-12
        assert apart(before[1], segment(model)) < 1e-12
        assert {name: len(gate) for name, gate in gates.items()} == describe(model).sizes
    assert torch.equal(before[0], embed(model))


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("name", KINDS)
def test_gates_of_zero_mask(family: str, name: str) -> None:
    model = build(family)
    ident = identity_plan(describe(model))
    gone = [1, 2] if ident.sizes[name] < 10 else [0, 3, 17, 21]
    kept = {**ident.kept, name: tuple(index for index in ident.kept[name] if index not in gone)}
    with mask_channels(model, Plan(ident.family, "flex", ident.sizes, kept)):
        wanted = embed(model), segment(model)
    with hang_gates(model, describe(model).groups) as gates:
        with torch.no_grad():
            gates[name][gone] = 0.0
        assert apart(wanted[0], embed(model)) < 1e-12
        assert apart(wanted[1], segment(model)) < 1e-12


@contextmanager
def turn(model: Any, name: str, channel: int, factor: float) -> Iterator[None]:
    """Multiply one channel wherever it is read, written out by hand for a tiny model of 4 heads of 6."""
    encoder = getattr(model, "vision_encoder", model)

    def scale(positions: list[int], dim: int) -> Callable[[Tensor], Tensor]:
        def apply(states: Tensor) -> Tensor:
            states = states.clone()
            states[(slice(None),) * (dim % states.ndim) + (positions,)] *= factor
            return states

        return apply

    def reads(layer: nn.Module, positions: list[int], dim: int = -1) -> Any:
        change = scale(positions, dim)
        return layer.register_forward_pre_hook(lambda _, args: (change(args[0]),))

    def gives(layer: nn.Module, positions: list[int]) -> Any:
        change = scale(positions, -1)
        return layer.register_forward_hook(lambda _, args, output: change(output))

    def norms(layer: Any) -> Any:
        def normalize(_: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            counts = torch.ones(24, dtype=torch.float64)
            counts[channel] = factor
            mean = (args[0] * counts).sum(-1, keepdim=True) / counts.sum()
            spread = (((args[0] - mean) ** 2) * counts).sum(-1, keepdim=True) / counts.sum()
            return (args[0] - mean) / torch.sqrt(spread + layer.eps) * layer.weight + layer.bias

        return layer.register_forward_hook(normalize)

    block = encoder.layers[1]
    with ExitStack() as stack:
        if name == "embedding":
            hooks = [reads(encoder.neck.conv1, [channel], 1)]
            for each in encoder.layers:
                hooks += [norms(each.layer_norm1), norms(each.layer_norm2)]
                hooks += [reads(each.attn.qkv, [channel]), reads(each.mlp.lin1, [channel])]
        elif name.endswith("mlp"):
            hooks = [reads(block.mlp.lin2, [channel])]
        else:
            of_heads = name.endswith("heads")
            own = [6 * channel + i for i in range(6)] if of_heads else [6 * i + channel for i in range(4)]
            hooks = [gives(block.attn.qkv, own), reads(block.attn.proj, own)]
        for hook in hooks:
            stack.callback(hook.remove)
        yield


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_agree_with_finite_differences(name: str) -> None:
    model = build()
    with hang_gates(model, [find(model, name)]) as gates:
        (found,) = torch.autograd.grad(project(model), [gates[name]])
    step = 1e-5
    for channel in (0, 2, 3):
        ends = []
        for factor in (1 + step, 1 - step):
            with turn(model, name, channel, factor), torch.no_grad():
                ends.append(float(project(model)))
        # The difference of two sums of some hundred in float64 is known to about 1e-14, so the slope to 1e-9.
        assert float(found[channel]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_are_sums_of_weight_times_gradient(name: str) -> None:
    model = build()
    with hang_gates(model, [find(model, name)], statistics=False) as gates:
        (found,) = torch.autograd.grad(project(model), [gates[name]])
    project(model).backward()
    encoder = model.vision_encoder
    block = encoder.layers[1]

    def products(parameter: Any, dim: int) -> Tensor:
        product = (parameter * parameter.grad).detach().movedim(dim, 0)
        return product.reshape(len(product), -1).sum(1)

    if name == "embedding":
        wanted = products(encoder.neck.conv1.weight, 1)
        for each in encoder.layers:
            wanted = wanted + products(each.attn.qkv.weight, 1) + products(each.mlp.lin1.weight, 1)
    elif name.endswith("mlp"):
        wanted = products(block.mlp.lin2.weight, 1)
    else:
        queries = products(block.attn.qkv.weight, 0)[:24] + products(block.attn.qkv.bias, 0)[:24]
        both = (queries + products(block.attn.proj.weight, 1)).reshape(4, 6)
        wanted = both.sum(1) if name.endswith("heads") else both.sum(0)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


def test_the_statistics_of_norms_are_a_part_of_the_derivative() -> None:
    model = build()
    found = []
    for statistics in (True, False):
        with hang_gates(model, [find(model, "embedding")], statistics=statistics) as gates:
            found.append(torch.autograd.grad(project(model), [gates["embedding"]])[0])
    assert apart(found[0], found[1]) > 1e-2


def test_gates_leave_nothing_behind_after_an_error() -> None:
    model = build()
    with pytest.raises(RuntimeError, match="mine"), hang_gates(model, describe(model).groups):
        raise RuntimeError("mine")
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_gates_of_a_model_in_half_precision_are_wider() -> None:
    model = build(dtype=torch.bfloat16)
    before = embed(model)
    with hang_gates(model, describe(model).groups) as gates:
        assert gates["embedding"].dtype == torch.float32
        assert embed(model).dtype == torch.bfloat16 and apart(before.float(), embed(model).float()) < 0.1
