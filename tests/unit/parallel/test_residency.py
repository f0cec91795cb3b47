"""A worker holds the skeleton of a denoiser and just the weights that it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerogel.errors import DeviceError
from aerogel.parallel.flow import Flow, Unit
from aerogel.parallel.residency import (
    count_weights,
    dump_skeleton,
    fingerprint,
    list_weights,
    load_skeleton,
    needed_weights,
    place_weights,
)
from tests.unit.parallel.small import Denoiser, divide

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


class Tied(nn.Module):
    """Hold one weight under three names, buffers of two kinds, and tensors that are neither."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.b.weight = self.a.weight
        self.alias = self.a.weight
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.ones(8), persistent=False)
        self.loose = torch.full((2, 8), 0.5)
        self.more = {"same": self.loose, "phases": torch.polar(torch.ones(3), torch.arange(3.0))}

    def forward(self, sample: Tensor) -> Tensor:
        """Return [B, 8]."""
        hidden = self.c(self.b(self.a(sample))) * self.passing + self.kept.sum()
        return hidden + self.loose.sum() + self.more["phases"].imag.sum()


def flow_named(*names: str) -> Flow:
    """Return a flow of units of these names."""
    units = tuple(Unit(name, 1, (), None) for name in names)
    return Flow(units, tuple(frozenset() for _ in units), frozenset(), len(units))


def move(model: nn.Module) -> nn.Module:
    """Return what another process would have with all weights."""
    there = load_skeleton(dump_skeleton("unet", model), CPU)
    weights = list_weights(model)
    place_weights(
        there, {name: weights[name].detach().clone() for name in needed_weights(model, flow_named(), ())}
    )
    return there


def test_a_skeleton_has_no_weights() -> None:
    model = nn.Linear(1000, 1000)
    data = dump_skeleton("unet", model)
    assert len(data) < 0.01 * model.weight.nbytes
    there = load_skeleton(data, CPU)
    assert {each.device.type for each in list_weights(there).values()} == {"meta"}
    assert not any(each.requires_grad for each in there.parameters())


def test_ties_buffers_and_loose_tensors_arrive() -> None:
    model = Tied()
    there: Any = move(model)
    with torch.no_grad():
        assert torch.equal(there(X), model(X))
    assert there.a.weight is there.b.weight is there.alias
    assert there.more["same"] is there.loose
    assert "passing" not in there.state_dict()
    assert not any(each.is_meta for each in list_weights(there).values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_dtype_and_layout(dtype: torch.dtype) -> None:
    model = nn.Conv2d(4, 6, 3).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.register_buffer("wide", torch.arange(4.0).expand(3, 4))
    model.register_buffer("strided", torch.arange(12.0).reshape(3, 4).t())
    there = load_skeleton(dump_skeleton("unet", model), CPU)
    for name, weight in list_weights(model).items():
        like = list_weights(there)[name]
        assert (like.dtype, like.shape) == (weight.dtype, weight.shape)
        assert like.stride() == (weight.clone().stride() if name == "wide" else weight.stride())


def test_a_device_needs_its_units_and_all_glue() -> None:
    model = nn.ModuleDict(
        {"time": nn.Linear(2, 2), "a": nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(11))}
    )
    flow = flow_named("a.1", "a.10")
    assert needed_weights(model, flow, {"a.1"}) == [
        "time.weight",
        "time.bias",
        *(f"a.{each}.weight" for each in range(10)),
    ]
    assert "a.1.weight" not in needed_weights(model, flow, {"a.10"})
    assert count_weights(model, ["time.weight", "a.3.weight"]) == 32


def test_a_weight_of_two_units_goes_to_both() -> None:
    model, flow = Tied(), flow_named("a", "b", "c")
    assert needed_weights(model, flow, {"c"}) == ["alias", "c.weight", "kept", "passing"]
    del model.alias
    assert "b.weight" in needed_weights(model, flow, {"b"})
    assert "a.weight" in needed_weights(model, flow, {"a", "b"})
    there: Any = load_skeleton(dump_skeleton("unet", model), CPU)
    place_weights(there, {"b.weight": model.b.weight.detach().clone()})
    assert there.a.weight is there.b.weight
    assert torch.equal(there.a.weight, model.a.weight)


class Strange(Tensor):
    """Be a tensor of a class of its own, as quantised weights are."""


def test_weights_of_classes_of_their_own_travel_with_the_skeleton() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("packed", torch.ones(3).as_subclass(Strange))
    assert "packed" not in needed_weights(model, flow_named(), ())
    there = move(model)
    assert isinstance(there.packed, Strange)
    assert there.packed.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "spoil", [lambda model: None, lambda model: setattr(model, "open", (each for each in ()))]
)
def test_what_cannot_travel_is_refused_by_name(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Denoiser()
    spoil(model)
    monkeypatch.setattr(type(model.blocks[0]), "__module__", "__main__")
    with pytest.raises(
        DeviceError, match=r"a denoiser 'unet' .*(Block is defined in the script itself|generator)"
    ):
        dump_skeleton("unet", model)


def change_weight(model: Denoiser) -> None:
    with torch.no_grad():
        model.blocks[0].linear.weight.add_(1.0)


def change_data(model: Denoiser) -> None:
    model.blocks[0].linear.weight.data += 1.0  # as peft merges an adapter: counted nowhere


def replace_weight(model: Denoiser) -> None:
    values = model.blocks[0].linear.weight.detach() + 1.0
    del model.blocks[0].linear.weight
    model.blocks[0].linear.weight = nn.Parameter(values)


def replace_block(model: Denoiser) -> None:
    model.blocks[0] = nn.Identity()


def scale(model: Denoiser) -> None:
    model.blocks[0].scaling = {"style": 0.5}


def switch_off(model: Denoiser) -> None:
    model.blocks[0]._disable_adapters = True


def set_processor(model: Denoiser) -> None:
    model.blocks[0].processor = Denoiser


def hook(model: Denoiser) -> None:
    model.blocks[0].register_forward_hook(print)


@pytest.mark.parametrize(
    "change",
    [change_weight, change_data, replace_weight, replace_block, scale, switch_off, set_processor, hook],
)
def test_every_change_is_seen(change: Any) -> None:
    model = Denoiser()
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) != before


def test_an_adapter_that_is_rescaled_is_seen() -> None:
    model = Denoiser()
    scale(model)
    before = fingerprint(model)
    model.blocks[0].scaling["style"] = 0.25
    assert fingerprint(model) != before


def test_running_changes_nothing() -> None:
    model = Denoiser().eval()
    model.blocks[0].linear.weight.data[0] = torch.nan
    model.register_parameter("wide", nn.Parameter(torch.ones(1).expand(1000)))
    model.register_parameter("empty", nn.Parameter(torch.zeros(0)))
    with torch.inference_mode():
        model.blocks[1].linear.bias = nn.Parameter(torch.ones(8), requires_grad=False)
    before = fingerprint(model)
    with torch.no_grad():
        model(X, 900.0)
        divide(model, 2, X)
    model.train().eval()
    assert fingerprint(model) == before
