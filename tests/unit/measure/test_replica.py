from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aerogel.errors import DataError
from aerogel.measure.replica import copy_model


class Holder(nn.Module):
    """A model with everything that makes copying hard."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("grid", torch.arange(4.0))
        self.history = self.first.weight * 2  # carries a gradient history: deepcopy alone refuses it
        self.anchors = [torch.ones(2), {"deep": (torch.ones(3), self.grid)}]
        self.unregistered = [nn.Linear(2, 2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.first(x)) + self.grid + self.history.sum()
        return out


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_every_tensor_moves_and_ties_hold(device: str) -> None:
    model = Holder()
    replica: Any = copy_model(model, device)
    assert replica.second.weight is replica.first.weight
    assert replica.anchors[1]["deep"][1] is replica.grid
    tensors = [
        *replica.state_dict().values(),
        replica.history,
        *replica.anchors[:1],
        replica.anchors[1]["deep"][0],
    ]
    tensors += list(replica.unregistered[0].parameters())
    assert {tensor.device.type for tensor in tensors} == {device}
    assert not any(tensor.requires_grad for tensor in tensors)
    originals = [*model.state_dict().values(), model.history]
    assert {tensor.device.type for tensor in originals} == {"cpu"}
    if device == "cpu":
        assert {tensor.data_ptr() for tensor in tensors}.isdisjoint(tensor.data_ptr() for tensor in originals)
        torch.testing.assert_close(replica(torch.ones(1, 4)), model.eval()(torch.ones(1, 4)))


def test_without_a_device_only_the_parameters_are_shared() -> None:
    model = Holder().requires_grad_(True)
    replica: Any = copy_model(model, None)
    assert replica.first.weight is replica.second.weight is model.first.weight
    assert replica.unregistered[0].weight is model.unregistered[0].weight
    pairs = [
        (replica.grid, model.grid),
        (replica.history, model.history),
        (replica.anchors[1]["deep"][0], model.anchors[1]["deep"][0]),
    ]
    for copied, original in pairs:
        assert torch.equal(copied, original)
        assert copied.data_ptr() != original.data_ptr()
    assert replica.anchors[1]["deep"][1] is replica.grid
    assert model.first.weight.requires_grad
    assert (model.training, replica.training) == (True, False)
    torch.testing.assert_close(replica(torch.ones(1, 4)), model.eval()(torch.ones(1, 4)))


def test_hooks_that_compute_weights_stay_and_others_go() -> None:
    layer = nn.Linear(4, 4)
    nn.utils.spectral_norm(layer)
    layer.register_forward_pre_hook(lambda module, args: None)
    layer.register_forward_hook(lambda module, args, out: out * 0)
    replica = copy_model(layer, "cpu")
    assert [type(hook).__name__ for hook in replica._forward_pre_hooks.values()] == ["SpectralNorm"]
    assert not replica._forward_hooks
    assert (len(layer._forward_pre_hooks), len(layer._forward_hooks)) == (2, 1)
    assert replica(torch.ones(1, 4)).abs().sum() > 0


def test_the_copy_is_in_evaluation_mode_and_the_original_stays_in_training() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    assert not any(module.training for module in copy_model(model, "meta").modules())
    assert all(module.training for module in model.modules())


def test_a_compiled_model_is_copied_as_its_source() -> None:
    compiled: Any = torch.compile(nn.Linear(2, 2), backend="eager")
    assert type(copy_model(compiled, "meta")) is nn.Linear


def test_what_cannot_be_copied_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.stream = (n for n in range(3))  # type: ignore[assignment]
    with pytest.raises(DataError, match="generator"):
        copy_model(model, "meta")


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="lazy parameter 'weight'"):
        copy_model(nn.LazyLinear(2), "meta")
