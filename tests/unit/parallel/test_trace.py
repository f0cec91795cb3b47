"""Calls are found with what they read, give and cost, without touching the denoiser."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aerogel.parallel.trace import (
    Slot,
    TensorSpec,
    distinct_tensors,
    fill_slots,
    trace_calls,
)
from tests.unit.parallel.tiny import LINEAR, ROWS, WIDTH, Net, by_name, linear, rows, trace


class Output(OrderedDict[str, Any]):
    """Give tensors by name, registered with torch as the outputs of diffusers and transformers are."""


pytree.register_pytree_node(
    Output,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: Output(zip(names, values, strict=True)),
)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Bundle:
    x: Tensor


def net(function: Callable[..., Any], *names: str, **modules: nn.Module) -> Net:
    """Return a denoiser with a layer for each name."""
    return Net(function, **{name: linear() for name in names}, **modules)


def reads(denoiser: nn.Module, *args: Any, **kwargs: Any) -> dict[str, set[str]]:
    """Return which calls each call reads; all of them must give one tensor."""
    found = by_name(trace(denoiser, *args, **kwargs))
    return {name: {source for source, _ in call.reads} for name, call in found.items() if name}


def test_a_chain_hands_on_one_tensor_at_a_time() -> None:
    root = trace(net(lambda self, x: self.c(self.b(self.a(x))), "a", "b", "c"))
    assert [call.name for call in root.walk()] == ["", "a", "b", "c"]
    assert [call.reads for call in root.inside] == [frozenset(), {("a", 0)}, {("b", 0)}]
    assert root.made_of == (frozenset({("c", 0)}),)
    assert root.reads == frozenset()
    assert all(call.movable for call in root.walk())
    assert all(
        call.outputs == (TensorSpec((ROWS, WIDTH), (WIDTH, 1), torch.float32),) for call in root.walk()
    )
    assert root.inside[0].made_of == (frozenset(),), "inside a layer nothing is called"


def test_values_pass_through_the_operations_between_calls() -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        left, right = self.a(x).chunk(2, -1)
        gate = torch.cat([right, left], -1).sigmoid()
        skipped = self.b(x * gate)
        return self.d(self.c(skipped) + x) + skipped * 2  # type: ignore[no-any-return]

    root = trace(net(function, "a", "b", "c", "d"))
    found = by_name(root)
    assert found["a"].reads == found["d"].reads - {("c", 0)} == frozenset()
    assert found["b"].reads == {("a", 0)}
    assert found["c"].reads == {("b", 0)}
    assert root.made_of == ({("d", 0), ("b", 0)},)


def test_a_skip_connection_reads_both_ends() -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        first = self.a(x)
        return self.c(self.b(first) + first)  # type: ignore[no-any-return]

    assert reads(net(function, "a", "b", "c")) == {"a": set(), "b": {"a"}, "c": {"a", "b"}}


@pytest.mark.parametrize(
    "write",
    [
        lambda into, x: into.copy_(x),
        lambda into, x: into.add_(x),
        lambda into, x: torch.add(x, 1, out=into),
        lambda into, x: into[:, 0].mul_(x[:, 0]),
        lambda into, x: into.view(-1).copy_(x.view(-1)),
        lambda into, x: into.__setitem__((slice(None), 0), x[:, 0]),
    ],
    ids=["copy_", "add_", "out", "mul_ of a view", "copy_ of a view", "setitem"],
)
def test_what_is_written_in_place_is_followed(write: Callable[[Tensor, Tensor], Any]) -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        buffer = torch.zeros_like(x)
        view = buffer[:, :]
        write(buffer, self.a(x))
        return self.b(view) + self.c(x)  # type: ignore[no-any-return]

    assert reads(net(function, "a", "b", "c")) == {"a": set(), "b": {"a"}, "c": set()}


def test_a_second_call_has_a_name_of_its_own_and_neither_is_movable() -> None:
    root = trace(net(lambda self, x: self.b(self.a(self.a(x))), "a", "b"))
    assert [(call.name, call.movable, call.macs) for call in root.inside] == [
        ("a", False, 2 * LINEAR),
        ("a#2", False, 0),
        ("b", True, LINEAR),
    ]
    assert [call.reads for call in root.inside] == [frozenset(), {("a", 0)}, {("a#2", 0)}]


def test_what_is_inside_a_module_called_twice_is_not_movable() -> None:
    root = trace(net(lambda self, x: self.a(self.a(x)), a=net(lambda self, x: self.b(x), "b")))
    assert [call.movable for call in root.walk()] == [True, False, False, False, False]


def _halve(self: Any, given: dict[str, list[Tensor]]) -> Tensor:
    return given["x"][0].mul_(0.5) + 1


@pytest.mark.parametrize("view", [False, True])
def test_a_unit_that_changes_its_input_is_not_movable(view: bool) -> None:
    def change(self: Any, x: Tensor) -> Tensor:
        changed = x[:, :] if view else x
        changed += self.d(x)
        return self.e(x)  # type: ignore[no-any-return]

    def function(self: Any, x: Tensor) -> Tensor:
        first = self.a(x)
        second = self.b(first)
        return self.c(first) + second  # type: ignore[no-any-return]

    root = trace(net(function, "a", "c", b=net(change, "d", "e")))
    found = by_name(root)
    assert {name for name, call in found.items() if not call.movable} == {"b"}
    assert found["c"].reads == {("a", 0), ("b.d", 0)}, "what it was changed by is read as well"


def test_a_unit_that_changes_its_input_by_itself_is_not_movable() -> None:
    denoiser = net(lambda self, x: self.c(self.b({"x": [self.a(x)]})), "a", "c", b=Net(_halve))
    found = by_name(trace(denoiser))
    assert {name for name, call in found.items() if not call.movable} == {"b"}


def test_a_unit_that_changes_what_it_made_is_movable() -> None:
    change = net(lambda self, x: self.b(x).relu_().mul_(2), "b")
    assert all(call.movable for call in trace(net(lambda self, x: self.a(x), a=change)).walk())


def test_a_view_of_an_input_is_an_output_of_its_own() -> None:
    def function(self: Any, x: Tensor) -> Any:
        first = self.a(x)
        return self.c(self.b(first)), self.d(first)

    found = reads(net(function, "a", "c", "d", b=Net(lambda self, x: x[:, :])))
    assert found == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}


def test_an_input_that_is_handed_on_is_an_output_of_its_own() -> None:
    root = trace(net(lambda self, x: self.b(self.i(self.a(x))), "a", "b", i=nn.Identity()))
    assert by_name(root)["i"].made_of == (frozenset({("a", 0)}),)
    assert by_name(root)["b"].reads == {("i", 0)}


def test_nested_blocks_are_known_at_every_level() -> None:
    def inner(self: Any, x: Tensor, y: Tensor) -> Any:
        left = self.l(x)
        return left + x, self.r(left + y)

    def function(self: Any, x: Tensor) -> Tensor:
        low = self.a(x)
        left, right = self.b(low, x)
        return self.c(left, right)[1] + low  # type: ignore[no-any-return]

    root = trace(net(function, "a", b=net(inner, "l", "r"), c=net(inner, "l", "r")))
    found = by_name(root)
    assert list(found) == ["", "a", "b", "b.l", "b.r", "c", "c.l", "c.r"]
    assert [call.name for call in root.inside] == ["a", "b", "c"]
    assert found["b"].reads == found["b.l"].reads == {("a", 0)}
    assert found["b.r"].reads == {("b.l", 0)}
    assert found["b"].made_of == ({("b.l", 0), ("a", 0)}, {("b.r", 0)})
    assert found["c"].reads == {("b", 0), ("b", 1)}, "outside, what b calls is not seen"
    assert found["c.l"].reads == {("b", 0)}
    assert found["c.r"].reads == {("c.l", 0), ("b", 1)}
    assert found["c"].made_of == ({("c.l", 0), ("b", 0)}, {("c.r", 0)})
    assert root.made_of == ({("c", 1), ("a", 0)},)


@pytest.mark.parametrize(
    ("give", "shape"),
    [
        (lambda a, b: {"x": a, "y": (b, a)}, {"x": Slot(0), "y": (Slot(1), Slot(0))}),
        (lambda a, b: [a, None, b], [Slot(0), None, Slot(1)]),
        (lambda a, b: Pair(b, [b, a]), Pair(Slot(0), [Slot(0), Slot(1)])),
        (lambda a, b: Output(x=a, y=b, z=a), Output(x=Slot(0), y=Slot(1), z=Slot(0))),
    ],
    ids=["dict", "list", "named tuple", "output class"],
)
def test_a_tensor_that_occurs_twice_is_given_once(give: Callable[..., Any], shape: Any) -> None:
    unit = net(lambda self, x: give(self.l(x), self.m(x)[:, :3]), "l", "m")
    root = trace(Net(lambda self, x: self.a(x), a=unit))
    call = by_name(root)["a"]
    assert call.movable
    assert len(call.outputs) == len(call.made_of) == 2
    assert (call.shape, type(call.shape)) == (shape, type(shape))
    tensors = [torch.ones(spec.shape) for spec in call.outputs]
    filled = fill_slots(call.shape, tensors)
    assert type(filled) is type(shape)
    assert [id(each) for each in distinct_tensors(filled)] == [id(each) for each in tensors]


def test_each_output_is_read_by_its_number() -> None:
    unit = net(lambda self, x: {"x": self.l(x), "y": self.m(x)}, "l", "m")
    root = trace(net(lambda self, x: self.c(self.b(self.a(x)["y"])), "b", "c", a=unit))
    assert by_name(root)["b"].reads == {("a", 1)}
    assert [set(each) for each in by_name(root)["a"].made_of] == [{("a.l", 0)}, {("a.m", 0)}]


@pytest.mark.parametrize(
    "give",
    [
        lambda x: (x, 3),
        lambda x: {"x": x, "kind": "noise"},
        lambda x: Bundle(x),
        lambda x: None,
        lambda x: x.shape,
        lambda x: [],
    ],
    ids=["number", "text", "unknown class", "nothing", "shape", "empty"],
)
def test_what_gives_more_or_less_than_tensors_is_not_movable(give: Callable[..., Any]) -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        self.b(x)
        return self.a(x)  # type: ignore[no-any-return]

    found = by_name(trace(net(function, "a", b=net(lambda self, x: give(self.l(x)), "l"))))
    assert not found["b"].movable
    assert found["b"].shape is None
    assert found["b.l"].movable
    assert found["a"].movable


def test_inputs_are_read_wherever_they_are_given() -> None:
    def function(self: Any, x: Tensor, *, more: dict[str, Any]) -> Tensor:
        b = self.b(more["y"][0])
        return self.c(self.a(x), b=[{"x": b}], flag=True, none=None)  # type: ignore[no-any-return]

    def unit(self: Any, a: Tensor, *, b: Any, flag: bool, none: None) -> Tensor:
        return self.l(a) if flag else b[0]["x"]  # type: ignore[no-any-return]

    denoiser = net(function, "a", "b", c=net(unit, "l"))
    assert reads(denoiser, rows(), more={"y": (rows(2),)})["c"] == {"a", "b"}


def test_inputs_in_a_class_of_the_denoisers_own_are_read() -> None:
    unit = net(lambda self, bundle: self.l(bundle.x), "l")
    denoiser = net(lambda self, x: self.b(Bundle(self.a(x))), "a", b=unit)
    assert reads(denoiser)["b"] == {"a"}


def _append(self: Any, x: Tensor, kept: list[Tensor]) -> Tensor:
    kept.append(self.l(x))
    return self.m(kept[-1])  # type: ignore[no-any-return]


def _remember(self: Any, x: Tensor, kept: list[Tensor]) -> Tensor:
    self.memory = self.l(x)
    return self.m(self.memory)  # type: ignore[no-any-return]


@pytest.mark.parametrize("leave", [_append, _remember])
def test_a_unit_that_leaves_something_behind_is_not_movable_or_is_read(leave: Callable[..., Any]) -> None:
    """Who does not run it would find an old tensor, or none."""

    def function(self: Any, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        y = self.a(x, kept)
        return self.b(y) + self.c(kept[0] if kept else self.a.memory)  # type: ignore[no-any-return]

    found = by_name(trace(net(function, "b", "c", a=net(leave, "l", "m"))))
    assert not found["a"].movable or ("a", 0) in found["c"].reads


def test_it_works_where_the_caller_infers() -> None:
    denoiser = net(lambda self, x: self.b(self.a(x)), "a", "b")
    with torch.inference_mode():
        assert reads(denoiser, rows()) == {"a": set(), "b": {"a"}}


def _attend(self: Any, x: Tensor) -> Tensor:
    query, key, value = self.qkv(x).view(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4)
    return (
        F.scaled_dot_product_attention(query, key[..., :3, :], value[..., :3, :]).transpose(1, 2).flatten(2)
    )


@pytest.mark.parametrize(
    ("unit", "given", "macs"),
    [
        (nn.Linear(6, 5), (2, 3, 6), 2 * 3 * 6 * 5),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 5), 2 * 7 * 5 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (1, 4, 7, 7), 3 * 3 * 6 * 2 * 9),
        (nn.Conv3d(2, 3, (3, 1, 1)), (1, 2, 5, 4, 4), 3 * 16 * 3 * 2 * 3),
        (Net(_attend, qkv=nn.Linear(16, 48)), (2, 5, 16), 2 * 5 * 16 * 48 + 2 * (2 * 4 * 5 * 3 * 4)),
        (Net(lambda self, x: x @ x.mT), (3, 5, 7), 3 * 5 * 7 * 5),
        (nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (1, 5, 8), 5 * 8 * (32 + 24) + 2 * 25 * 8),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Upsample(scale_factor=2)), (1, 4, 3, 3), 0),
    ],
    ids=["linear", "conv", "grouped", "conv3d", "attention", "product", "encoder", "none"],
)
def test_multiply_accumulates_by_hand(unit: nn.Module, given: tuple[int, ...], macs: int) -> None:
    denoiser = net(lambda self, x: (self.a(x), self.l(rows(2).to(x.device)), x @ x.mT), "l", a=unit)
    found = by_name(trace(denoiser, torch.ones(given)))
    glue = torch.Size(given).numel() * given[-2]
    assert (found["a"].macs, found["l"].macs) == (macs, 2 * WIDTH * WIDTH)
    assert found[""].macs == macs + 2 * WIDTH * WIDTH + glue


def test_multiply_accumulates_of_a_part_are_part_of_the_whole() -> None:
    found = by_name(trace(Net(_attend, qkv=nn.Linear(16, 48)), torch.ones(2, 5, 16)))
    assert found["qkv"].macs == 2 * 5 * 16 * 48
    assert found[""].macs - found["qkv"].macs == 2 * (2 * 4 * 5 * 3 * 4)


def test_the_denoiser_and_its_inputs_are_left_as_they_were() -> None:
    denoiser = nn.Sequential(
        linear(), nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Dropout()), nn.Linear(WIDTH, 3)
    )
    denoiser[2].register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    given, before = rows(), {name: value.clone() for name, value in denoiser.state_dict().items()}
    trace_calls(denoiser, (), {"input": given})
    for module in denoiser.modules():
        assert "forward" not in vars(module)
        assert module.training
    assert {value.device.type for value in denoiser.state_dict().values()} == {"cpu"}
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
    assert torch.equal(given, rows())
    assert given._version == 0


def test_a_trace_needs_no_memory() -> None:
    with torch.device("meta"):
        denoiser = nn.Sequential(nn.Linear(1_000_000, 1_000_000), nn.Linear(1_000_000, 10))
    assert trace(denoiser, torch.empty(4, 1_000_000, device="meta")).macs == 4 * 10**12 + 4 * 10**7
