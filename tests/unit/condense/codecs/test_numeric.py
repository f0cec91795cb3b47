"""What is written as numbers comes back as close as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aerogel.condense.codecs.encodings import build_encoding
from aerogel.condense.codecs.naming import parse_codec
from tests.unit.condense.codecs.codes import round_trip, rows

HALF = 2.0**-11  # of a float16, relative
TINY = 2.0**-24


@given(rows())
def test_float32_is_exact(logits: Tensor) -> None:
    assert round_trip("fp32", logits).numpy().tobytes() == logits.numpy().tobytes()


@given(rows())
def test_float16_is_rounded_once(logits: Tensor) -> None:
    error = (round_trip("fp16", logits) - logits).abs()
    assert bool((error <= logits.abs() * HALF + TINY).all())


@given(rows())
def test_int8_is_within_half_a_step(logits: Tensor) -> None:
    exact = logits.double()
    low, high = exact.amin(1), exact.amax(1)
    # The offset is below the smallest by at most its rounding, and the step above its even share by its own.
    span = high - low + 2 * HALF * low.abs() + TINY
    step = torch.clamp(span / 255 * (1 + 2 * HALF) + TINY, min=TINY)
    error = (round_trip("int8", logits).double() - exact).abs()
    rounding = 2.0**-22 * exact.abs().amax(1)  # of what is computed in float32
    assert bool((error <= (step / 2 + rounding)[:, None]).all())


@given(rows(), st.integers(1, 3), st.sampled_from(["", "+fp32", "+int8"]))
def test_top_k_keeps_the_order_and_is_a_distribution(logits: Tensor, count: int, numbers: str) -> None:
    codec = parse_codec(f"stored-top{count}{numbers}")
    encoding = build_encoding(codec, logits.shape[1])
    code = encoding.encode(logits)
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :count]
    assert code["classes"].tolist() == order.tolist()
    found = encoding.decode(code)
    assert bool((found.mean(1).abs() <= 1e-3 + found.abs().amax(1) * 1e-5).all())
    heights = found.gather(1, torch.from_numpy(order))
    assert bool((heights[:, :-1] >= heights[:, 1:]).all())
    rest = found.clone().scatter_(1, torch.from_numpy(order), math.inf)
    tail = rest.amin(1)
    left = rest[torch.isfinite(rest)].reshape(len(found), -1)
    assert bool((left == tail[:, None]).all()), "the rest is even"
    slack = 1e-5 * (1 + found.abs().amax(1))
    assert bool((heights[:, -1] >= tail - slack).all()), "and nothing stored lies below it"
    assert found.double().softmax(1).sum(1).tolist() == pytest.approx([1.0] * len(found))


@given(rows(), st.integers(1, 3))
def test_top_k_keeps_the_probabilities(logits: Tensor, count: int) -> None:
    exact = logits.double().softmax(1)
    order = exact.sort(dim=1, descending=True, stable=True).indices
    whole = round_trip(f"top{count}+fp32", logits).double().softmax(1)
    kept = order[:, :count]
    assert torch.allclose(whole.gather(1, kept), exact.gather(1, kept), atol=2e-3, rtol=2e-3)
    mass = exact.gather(1, order[:, count:]).sum(1)
    assert torch.allclose(whole.gather(1, order[:, count:]).sum(1), mass, atol=2e-3, rtol=2e-3)
    # Heights in float16 are off by at most 2**-11 of themselves.
    half, full = round_trip(f"top{count}", logits), round_trip(f"top{count}+fp32", logits)
    height = full.amax(1) - full.amin(1)
    rounding = TINY + 2.0**-20 * full.abs().amax(1)
    assert bool(((half - full).abs() <= (2 * HALF * height + rounding)[:, None]).all())
    # As codes they are off by at most half a step, and the row's mean by no more.
    step = (height * (1 + 2 * HALF) + TINY) / 255 * (1 + 2 * HALF) + TINY
    codes = round_trip(f"top{count}+int8", logits)
    assert bool(((codes - full).abs() <= (step + rounding)[:, None]).all())


def test_top_k_by_hand() -> None:
    logits = torch.tensor([[math.log(6.0), math.log(2.0), math.log(1.0), math.log(3.0)]])
    found = round_trip("top2+fp32", logits)
    expected = torch.tensor([[6.0, 1.5, 1.5, 3.0]]).log()
    assert torch.allclose(found, expected - expected.mean(), atol=1e-6)
    assert torch.allclose(found.softmax(1), torch.tensor([[0.5, 0.125, 0.125, 0.25]]), atol=1e-6)
