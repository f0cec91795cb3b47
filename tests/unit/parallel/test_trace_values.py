"""Where shapes alone do not suffice, the values are there to look at, and what looks at them is known."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from aerogel.errors import AerogelError, DeviceError
from aerogel.parallel import trace as module
from aerogel.parallel.flow import choose_units, connect
from aerogel.parallel.trace import Call, trace_calls
from tests.unit.parallel.tiny import ROWS, WIDTH, Net, by_name, linear, rows, stage, trace, unet


def net(function: Callable[..., Any], *names: str, **modules: nn.Module) -> Net:
    """Return a denoiser with a layer for each name."""
    return Net(function, **{name: linear() for name in names}, **modules)


LOOKS: list[Callable[[Tensor], Any]] = [
    Tensor.item,
    bool,
    float,
    Tensor.tolist,
    lambda value: value.nonzero().sum(),
    lambda value: float(value.numpy()),
]


@pytest.mark.parametrize("look", LOOKS, ids=["item", "bool", "float", "tolist", "nonzero", "numpy"])
def test_a_denoiser_that_looks_at_an_argument_says_at_which(look: Callable[[Tensor], Any]) -> None:
    def function(self: Any, x: Tensor, *, mask: Tensor, time: Tensor) -> Tensor:
        return self.b(self.a(x) * look(mask.sum()) + time)  # type: ignore[no-any-return]

    root = trace(net(function, "a", "b"), rows(), time=torch.ones(1), mask=torch.ones(3))
    assert root.decisive == (2,), "x and the time come before"
    assert [call.movable for call in root.inside] == [True, True]
    assert by_name(root)["b"].reads == {("a", 0)}
    assert connect(root, choose_units(root, 0.0)).decisive == (2,)


def test_a_denoiser_of_shapes_alone_is_decided_by_nothing() -> None:
    root = trace(unet(2, 2), rows(), torch.ones(1, 1))
    assert root.decisive == connect(root, choose_units(root, 0.0)).decisive == ()


def test_an_argument_is_followed_through_what_is_made_of_it() -> None:
    def function(self: Any, x: Tensor, lengths: Tensor, unread: Tensor) -> Tensor:
        longest = (lengths + unread.new_ones(1)).max()
        return self.a(x[: int(longest)])  # type: ignore[no-any-return]

    root = trace(net(function, "a"), rows(), torch.tensor([1, 4]), torch.ones(1))
    assert root.decisive == (1,)
    assert by_name(root)["a"].outputs[0].shape == (5, WIDTH)


@pytest.mark.parametrize("look", LOOKS, ids=["item", "bool", "float", "tolist", "nonzero", "numpy"])
def test_a_denoiser_that_looks_at_what_its_parts_gave_is_refused_by_name(
    look: Callable[[Tensor], Any],
) -> None:
    """On a device that did not run the part there would be nothing to look at."""

    class Curious(Net):
        pass

    said = r"expected a denoiser whose operations depend on .*; got Curious: decisions on what its own parts"
    with pytest.raises(DeviceError, match=said) as caught:
        trace(Curious(lambda self, x: self.b(x * look(self.a(x).sum())), a=linear(), b=linear()))
    assert isinstance(caught.value, AerogelError)


def test_a_part_that_looks_inside_itself_moves_whole() -> None:
    """A mixture of experts: each row goes where a gate sends it."""

    def choose(self: Any, x: Tensor) -> Tensor:
        best = self.gate(x).argmax(-1)
        return torch.cat([self.low(x[best < WIDTH // 2]), self.high(x[best >= WIDTH // 2])])

    experts = net(choose, "gate", "high", low=net(lambda self, x: self.l(x), "l"))
    inner = Net(lambda self, x: self.after(self.experts(x)), experts=experts, after=stage(1))
    root = trace(net(lambda self, x: self.b(self.inner(self.a(x))), "a", "b", inner=inner))
    found = by_name(root)
    assert found["inner.experts"].movable
    assert [part.movable for part in found["inner.experts"].walk()] == [True] + [False] * 4
    assert found["inner.after.0.first"].movable
    assert root.decisive == ()
    units = [call.name for call in choose_units(root, 0.0)]
    assert units == ["a", "inner.experts", "inner.after.0.first", "inner.after.0.second", "b"]


def test_looking_at_what_came_before_keeps_the_parts_together() -> None:
    def scale(self: Any, x: Tensor) -> Tensor:
        return self.second(self.first(x) * x.max().item())  # type: ignore[no-any-return]

    root = trace(net(lambda self, x: self.b(self.a(x)), "a", b=net(scale, "first", "second")))
    assert [call.movable for call in by_name(root)["b"].walk()] == [True, False, False]


def test_without_values_to_look_at_it_is_refused() -> None:
    denoiser = net(lambda self, x, mask: self.a(x) * mask.item(), "a")
    with pytest.raises(DeviceError, match=r"got Net: .*; what to do: load its weights") as caught:
        trace(denoiser.to("meta"), rows(), torch.ones(1))
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError, match="load its weights"):
        trace(net(denoiser.function, "a"), rows(), torch.ones(1, device="meta"))


def test_a_denoiser_that_fails_says_why_itself() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        trace(linear(), torch.ones(2, 3))


def describe(root: Call, prefix: str = "") -> list[tuple[Any, ...]]:
    """Return all that is known of the calls inside ``prefix``, by their names there."""

    def plain(sources: frozenset[tuple[str, int]]) -> set[tuple[str, int]]:
        return {(name.removeprefix(prefix), number) for name, number in sources}

    return [
        (
            call.name.removeprefix(prefix),
            *(call.macs, call.movable, call.outputs, call.shape),
            plain(call.reads),
            [plain(each) for each in call.made_of],
        )
        for call in root.walk()
        if call.name.startswith(prefix) and call.name != prefix
    ]


def on_values(denoiser: nn.Module, *args: Any) -> Call:
    """Return the calls of ``denoiser``, named "inner", behind a look at a value."""

    def function(self: Any, look: Tensor, *args: Any) -> Any:
        return self.inner(*args) if bool(look) else None

    root = trace(Net(function, inner=denoiser), torch.ones(1), *args)
    assert root.decisive == (0,)
    return root


def _attend(self: Any, x: Tensor) -> Tensor:
    query, key, value = self.qkv(x).view(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4)
    few = F.scaled_dot_product_attention(query, key[..., :3, :], value[..., :3, :])
    masked = F.scaled_dot_product_attention(
        query, key, value, torch.ones(5, 5, dtype=torch.bool, device=x.device)
    )
    shared = F.scaled_dot_product_attention(query, key[:, :2], value[:, :2], enable_gqa=True)
    causal = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return (few + masked + shared + causal).transpose(1, 2).flatten(2)


def _write(self: Any, x: Tensor) -> Tensor:
    buffer = x.new_zeros(ROWS, WIDTH)
    buffer[:, :3] = self.a(x)[:, :3]
    return self.b(buffer)  # type: ignore[no-any-return]


def _give_views(self: Any, x: Tensor) -> Any:
    first = self.a(x)
    return {"wide": first[:, ::2], "row": first[:1].expand(4, WIDTH), "none": first[:0], "turned": first.T}


@pytest.mark.parametrize(
    ("denoiser", "given"),
    [
        (unet(2, 1, 2), (rows(), torch.ones(1, 1))),
        (Net(_attend, qkv=nn.Linear(16, 48)), (torch.ones(2, 5, 16),)),
        (net(_write, "a", "b"), (rows(),)),
        (net(_give_views, "a"), (rows(),)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()), (torch.ones(1, 3, 5, 5),)),
        (net(lambda self, x: self.a(self.a(x)), "a"), (rows(),)),
    ],
    ids=["unet", "attention", "written in place", "views", "convolution", "called twice"],
)
def test_values_tell_what_shapes_do(denoiser: nn.Module, given: tuple[Any, ...]) -> None:
    expected, found = trace(denoiser, *given), on_values(denoiser, *given)
    assert describe(found, "inner.") == describe(expected)
    assert (found.macs, found.outputs) == (expected.macs, expected.outputs)


def test_views_keep_their_values() -> None:
    """Also those that overlap: who is given a copy must find what is there without one."""
    x = torch.rand(ROWS, WIDTH)
    found: dict[str, Tensor] = {}

    def function(self: Any, x: Tensor) -> Any:
        given = self.views(x)
        found.update({name: each.detach() for name, each in given.items()})
        return given["wide"] * float(x.sum())

    trace(Net(function, views=Net(_give_views, a=nn.Identity())), x)
    wanted = {"wide": x[:, ::2], "row": x[:1].expand(4, WIDTH), "none": x[:0], "turned": x.T}
    for name, each in wanted.items():
        assert torch.equal(found[name], each)
        assert found[name].stride() == each.stride()


def looking(function: Callable[..., Any], **modules: nn.Module) -> Net:
    """Return a denoiser that looks at its argument first."""

    def forward(self: Any, x: Tensor) -> Any:
        float(x.sum())
        return function(self, x)

    return Net(forward, **modules)


def test_the_denoiser_its_inputs_and_the_dice_are_left_as_they_were() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm, self.calls = linear(), nn.BatchNorm1d(WIDTH), 0
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += int(x.sum() < 1e9)
            self.seen.add_(1)
            x += torch.rand_like(x)
            return F.dropout(self.norm(self.linear(x)), training=self.training)

    denoiser, given = Counting(), rows()
    denoiser.linear.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    state = torch.get_rng_state()
    assert trace_calls(denoiser, (given,), {}).decisive == (0,)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert (denoiser.calls, given._version) == (0, 0)
    assert torch.equal(given, rows())
    for each in denoiser.modules():
        assert "forward" not in vars(each)
        assert each.training
    assert all(parameter.requires_grad for parameter in denoiser.parameters())


def test_no_weight_is_copied() -> None:
    denoiser = looking(lambda self, x: (self.a(x), seen.append(self.a.weight.data_ptr()))[0], a=linear())
    seen: list[int] = []
    trace(denoiser)
    assert seen == [denoiser.a.weight.data_ptr()]


def test_what_a_part_gave_is_freed_when_nobody_needs_it() -> None:
    alive: list[int] = []
    given: list[StorageWeakRef] = []

    def function(self: Any, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
            given.append(StorageWeakRef(x.untyped_storage()))
        alive.append(sum(not each.expired() for each in given))
        return x

    trace(looking(function, **{name: linear() for name in "abcdef"}))
    assert alive == [1]


def test_it_works_where_the_caller_infers() -> None:
    with torch.inference_mode():
        denoiser = looking(lambda self, x: self.b(self.a(x) + 1), a=linear(), b=linear())
        found = by_name(trace(denoiser, rows()))
    assert found["b"].reads == {("a", 0)}


@pytest.mark.parametrize("looks", [False, True])
def test_nothing_is_kept_by_a_class_that_remembers_its_calls(looks: bool) -> None:
    class Rotary(nn.Module):
        @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
        def angles(self, size: int) -> Tensor:
            return torch.arange(size)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.angles(x.shape[-1]).to(x)

    class Remembering(Net):
        @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
        def one(self) -> int:
            return 1

    def function(self: Any, x: Tensor) -> Any:
        scale = float(x.sum()) if looks else 1.0
        return self.b(self.rotary(self.a(x))) * scale * self.one()

    denoiser = Remembering(function, a=linear(), b=linear(), rotary=Rotary())
    weight = weakref.ref(denoiser.a.weight)
    root = trace(denoiser)
    del denoiser
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is module._Tracer]
    assert weight() is None
    assert root.macs


def test_after_a_refusal_everything_is_as_before() -> None:
    denoiser = Net(lambda self, x: self.a(x) * self.a(x).sum().item(), a=linear())
    with pytest.raises(DeviceError):
        trace(denoiser)
    assert torch.is_grad_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.equal(denoiser.a(rows()), rows() @ denoiser.a.weight.T)
