from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.prune import l1_unstructured

from aerogel.errors import DataError, DeviceError
from aerogel.measure.macs import MacCount, count_macs


class Call(nn.Module):
    """A function as a model, with modules of its own."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def both(model: nn.Module, *inputs: Any, **kwargs: Any) -> MacCount:
    """Count on shapes alone and on the CPU; both must agree."""
    counted = count_macs(model, *inputs, **kwargs)
    assert counted == count_macs(model, *inputs, execute=True, **kwargs)
    return counted


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Linear(8, 5), (3, 8), 3 * 8 * 5),
        (nn.Linear(8, 5), (8,), 8 * 5),
        (nn.Linear(8, 5, bias=False), (2, 3, 8), 6 * 8 * 5),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 5), 2 * 6 * 7 * 5 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (1, 4, 7, 7), 6 * 9 * 2 * 9),
        (nn.Conv1d(4, 4, 3, groups=4), (1, 4, 10), 4 * 8 * 3),
        (nn.ConvTranspose2d(4, 6, 2, 2), (1, 4, 5, 5), 25 * 4 * 6 * 4),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.LSTM(8, 6), (3, 2, 8), 3 * 2 * 4 * 6 * (8 + 6)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), (2, 3, 4, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_layers_by_formula(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert both(layer, shape) == MacCount(linear=macs, attention=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_linear_layer_on_permuted_input_is_no_attention(frozen: bool) -> None:
    """torch computes it as a batched product when no gradient is needed."""
    layer = nn.Linear(8, 5).requires_grad_(not frozen)
    model = Call(lambda self, x: self.layer(x.permute(0, 2, 3, 1)), layer=layer)
    assert both(model, (3, 8, 7, 2)) == MacCount(linear=3 * 7 * 2 * 8 * 5, attention=0)


def test_casts_and_einsums_of_a_weight_are_linear() -> None:
    layer = nn.Linear(8, 5, bias=False)
    cast = Call(lambda self, x: x.bfloat16().transpose(1, 2) @ self.layer.weight.bfloat16().t(), layer=layer)
    assert both(cast, (3, 8, 7)) == MacCount(linear=3 * 7 * 8 * 5, attention=0)
    summed = Call(lambda self, x: torch.einsum("bct,oc->bot", x, self.layer.weight), layer=layer)
    assert both(summed, (3, 8, 7)) == MacCount(linear=3 * 7 * 8 * 5, attention=0)


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 8),
    st.booleans(),
)
@settings(max_examples=25)
def test_attention_by_formula(
    batch: int, heads: int, queries: int, keys: int, width: int, masked: bool
) -> None:
    def function(self: nn.Module, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(queries, keys, device=q.device) if masked else None
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask)

    counted = both(Call(function), (batch, heads, queries, width), (batch, heads, keys, width))
    assert counted == MacCount(linear=0, attention=2 * batch * heads * queries * keys * width)


def test_grouped_queries_count_every_query_head() -> None:
    def function(self: nn.Module, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, enable_gqa=True, is_causal=True)

    assert both(Call(function), (2, 4, 10, 16), (2, 2, 10, 16)) == MacCount(0, 2 * 2 * 4 * 10 * 10 * 16)


@pytest.mark.parametrize("training", [True, False])
def test_fused_encoder_layers_are_seen(training: bool) -> None:
    tokens, width, hidden = 5, 16, 32
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).train(training)
    counted = both(layer, (1, tokens, width))
    assert counted.linear == tokens * (4 * width * width + 2 * width * hidden)
    assert counted.attention == 2 * tokens * tokens * width
    assert layer.training is training


def test_inference_mode_inside_the_model_changes_nothing() -> None:
    @torch.inference_mode()
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.transpose(1, 2))  # type: ignore[no-any-return]

    assert both(Call(function, layer=nn.Linear(8, 5)), (3, 8, 7)) == MacCount(3 * 7 * 8 * 5, 0)


def test_inputs_of_every_kind() -> None:
    def function(
        self: Any, ids: torch.Tensor, pair: list[torch.Tensor], *, flag: bool, more: dict[str, Any]
    ) -> Any:
        assert flag
        assert more["scale"] == 2
        return self.layer(self.embedding(ids)), pair[0] @ pair[1], more["x"]

    model = Call(function, embedding=nn.Embedding(10, 8), layer=nn.Linear(8, 5)).double()
    ids = torch.ones(2, 3, dtype=torch.long)
    counted = both(model, ids, [(2, 4, 6), (2, 6, 7)], flag=True, more={"x": (1, 2), "scale": 2})
    assert counted == MacCount(linear=6 * 8 * 5, attention=2 * 4 * 6 * 7)


def test_half_precision_models_get_half_precision_zeros() -> None:
    assert both(nn.Linear(8, 5).bfloat16(), (3, 8)).linear == 120


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).double()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(torch.ones(3, 4, dtype=torch.double)).sum().backward()
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("hook"))
    model.register_forward_pre_hook(lambda *_: calls.append("pre"))

    def state() -> list[Any]:
        tensors = [*model.parameters(), *model.buffers()]
        about = [
            (id(t), t.data_ptr(), t.dtype, t.device, t.requires_grad, id(t.grad), t._version) for t in tensors
        ]
        return [
            about,
            [m.training for m in model.modules()],
            [len(m._forward_hooks) for m in model.modules()],
        ]

    before, values, random = state(), [p.clone() for p in model.parameters()], torch.get_rng_state()
    x = torch.ones(3, 4, dtype=torch.double)
    both(model, (3, 4))
    count_macs(model, x)
    assert state() == before
    assert all(torch.equal(a, b) for a, b in zip(values, model.parameters(), strict=True))
    assert calls == []
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, torch.ones_like(x))


def test_switches_of_torch_are_given_back_also_after_an_error() -> None:
    def switches() -> tuple[Any, ...]:
        cuda = torch.backends.cuda
        return (
            torch.is_grad_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.mkldnn.enabled,
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
        )

    before = switches()
    assert before[:3] == (True, True, True), "nothing before this test left a switch off"
    count_macs(nn.Linear(2, 2), (1, 2))
    with contextlib.suppress(RuntimeError):
        count_macs(nn.Linear(2, 2), (1, 3))
    assert switches() == before


def test_weights_that_hooks_compute_are_counted() -> None:
    pruned = nn.Linear(8, 5)
    l1_unstructured(pruned, "weight", amount=0.5)
    assert both(pruned, (3, 8)).linear == 120
    assert both(weight_norm(nn.Linear(8, 5)), (3, 8)).linear == 120


def test_a_product_with_a_vector_counts() -> None:
    model = Call(lambda self, x: (x @ self.layer.weight[0], torch.addmv(x[:, 0], x, self.layer.weight[1])))
    model.layer = nn.Linear(8, 5)
    assert both(model, (3, 8)) == MacCount(linear=2 * 3 * 8, attention=0)


def test_random_numbers_drawn_by_the_model_are_not_missed_by_the_caller() -> None:
    model = Call(lambda self, x: self.layer(x + torch.rand(3, 8)), layer=nn.Linear(8, 5))
    before = torch.get_rng_state()
    assert count_macs(model, (3, 8), execute=True).linear == 120
    assert torch.equal(before, torch.get_rng_state())


def test_models_that_look_at_values_are_run_on_request() -> None:
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum().item() == 0 else x

    model = Call(function, layer=nn.Linear(8, 5))
    with pytest.raises(DeviceError, match="execute=True"):
        count_macs(model, (3, 8))
    assert count_macs(model, (3, 8), execute=True).linear == 120


def test_models_without_memory_are_counted_at_any_size() -> None:
    with torch.device("meta"):
        model = nn.Linear(1_000_000, 1_000_000)
    assert count_macs(model, (2, 1_000_000)).linear == 2 * 10**12


def test_mistakes_of_the_caller_are_his_to_see() -> None:
    with pytest.raises(DataError, match="at least 1"):
        count_macs(nn.Linear(2, 2), (0, 2))
    with pytest.raises(TypeError, match="positional"):
        count_macs(nn.Linear(2, 2), (1, 2), (1, 2))
    with pytest.raises(DeviceError, match="whole numbers"):
        count_macs(nn.Embedding(3, 2), (1, 2))


def test_both_readings_are_reported() -> None:
    linear, full = MacCount(linear=1_814_073_344, attention=10**9).measurements()
    assert (linear.text, full.text) == ("1.814 GMACs", "2.814 GMACs")
    assert "only" in linear.name
    assert "attention" in full.name
