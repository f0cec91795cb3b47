"""The wiring runs what a seat owns, fetches the rest, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerogel.parallel.trace import Source, TensorSpec
from aerogel.parallel.wiring import Wiring, make_unread
from tests.unit.parallel.small import Denoiser, divide

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
TIME = torch.tensor(500.0)


class Noted:
    """Own the named units; give ones for the others."""

    def __init__(self, *owned: str) -> None:
        self.owned = owned
        self.kept: list[Source] = []
        self.fetched: list[Source] = []

    def owns(self, unit: str) -> bool:
        return unit in self.owned

    def keep(self, source: Source, spec: TensorSpec, tensor: Tensor) -> None:
        assert tuple(tensor.shape) == spec.shape
        self.kept.append(source)

    def fetch(self, source: Source, spec: TensorSpec) -> Tensor:
        self.fetched.append(source)
        return torch.ones(spec.shape, dtype=spec.dtype)


def test_units_run_or_are_fetched_as_the_seat_says() -> None:
    model = Denoiser()
    wiring, flow = Wiring(model), divide(model, 2, X).flow
    seat = Noted("blocks.0", "blocks.3")
    ran: list[str] = []
    for name in flow.names:
        model.get_submodule(f"{name}.linear").register_forward_hook(
            lambda module, args, output, name=name: ran.append(name)
        )
    with torch.no_grad(), wiring.taken(flow, seat):
        (found,) = model(X, TIME)
        first = model.blocks[0](X, TIME / 1000.0)
    assert ran == ["blocks.0", "blocks.3", "blocks.0"]
    assert seat.kept == [("blocks.0", 0), ("blocks.3", 0), ("blocks.0", 0)]
    assert seat.fetched == [("blocks.1", 0), ("blocks.2", 0)]
    with torch.no_grad():
        assert torch.equal(found, model.blocks[3](1.0 + first, TIME / 1000.0))


def test_without_a_seat_the_denoiser_is_itself() -> None:
    model = Denoiser()
    (plain,) = model(X, TIME)
    wiring, flow = Wiring(model), divide(model, 2, X).flow
    with wiring.taken(flow, Noted(*flow.names)):
        assert torch.equal(model(X, TIME)[0], plain)
    assert "forward" in vars(model.blocks[0])
    assert torch.equal(model(X, TIME)[0], plain)
    wiring.remove()
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_forward_of_the_users_own_comes_back() -> None:
    model = Denoiser()
    own = model.blocks[1].forward
    model.blocks[1].forward = own
    wiring, flow = Wiring(model), divide(model, 2, X).flow
    with wiring.taken(flow, Noted(*flow.names)):
        model(X, TIME)
    assert model.blocks[1].forward is not own
    wiring.remove()
    assert vars(model.blocks[1])["forward"] is own


def test_a_failure_gives_the_seat_up() -> None:
    model = Denoiser()
    wiring, flow = Wiring(model), divide(model, 2, X).flow
    seat = Noted(*flow.names)
    with pytest.raises(RuntimeError), wiring.taken(flow, seat):
        model(torch.zeros(2, 7), TIME)
    kept = len(seat.kept)
    model(X, TIME)
    assert len(seat.kept) == kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_nobody_reads_is_zeros_or_poison(dtype: torch.dtype) -> None:
    spec = TensorSpec((2, 3), (1, 2), dtype)
    zeros = make_unread(spec, torch.device("cpu"), poisoned=False)
    assert (zeros.shape, zeros.stride(), zeros.dtype) == ((2, 3), (1, 2), dtype)
    assert not zeros.any()
    poison = make_unread(spec, torch.device("cpu"), poisoned=True)
    assert bool(poison.isnan().all()) == dtype.is_floating_point
