"""What an encoding gives back is as close as it says, for a row whatever stands beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aerogel.condense.codecs.encodings import build_encoding, fit_codebooks, sample_size, view_bytes
from aerogel.condense.codecs.naming import parse_codec
from aerogel.errors import DataError

NAMES = ("fp32", "fp16", "int8", "top1", "top3", "top3+fp32", "top3+int8", "vq8", "pq2x8")
HALF = 2.0**-11  # of a float16, relative
TINY = 2.0**-24


@st.composite
def rows(draw: st.DrawFn) -> Tensor:
    """Draw a few rows of logits: even ones, equal ones, large and tiny ones."""
    classes = draw(st.integers(4, 9))
    count = draw(st.integers(1, 6))
    scale = draw(st.sampled_from([0.0, 1e-6, 1.0, 30.0, 2000.0]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(size=(count, classes)) * scale + draw(st.sampled_from([0.0, -50.0, 7.0]))
    if draw(st.booleans()):
        logits = np.round(logits)
    return torch.from_numpy(logits.astype(np.float32))


def round_trip(name: str, logits: Tensor) -> Tensor:
    codec = parse_codec(f"stored-{name}")
    books = fit_codebooks(codec, logits, 0) if codec.has_codebook else None
    encoding = build_encoding(codec, logits.shape[1], books)
    code = encoding.encode(logits)
    assert {key: (value.dtype, tuple(value.shape[1:])) for key, value in code.items()} == {
        key: (field.dtype, field.shape) for key, field in encoding.layout.items()
    }
    assert encoding.find_fault(code) is None
    found = encoding.decode(code)
    assert found.dtype == torch.float32 and found.shape == logits.shape
    return found


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


@pytest.mark.parametrize("name", ["vq8", "pq2x8"])
def test_codebooks_give_the_nearest_of_their_rows(name: str) -> None:
    logits = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)) * 4
    codec = parse_codec(f"stored-{name}")
    books = fit_codebooks(codec, logits, 0)
    encoding = build_encoding(codec, 5, books)
    found = encoding.decode(encoding.encode(logits))
    parts = logits.tensor_split(len(books), dim=1)
    for part, ours, book in zip(parts, found.tensor_split(len(books), dim=1), books.values(), strict=True):
        assert book.dtype == torch.float16 and book.shape == (8, part.shape[1])
        distance = torch.cdist(part.double(), book.double())
        assert torch.allclose((part - ours).double().norm(dim=1), distance.amin(1), atol=1e-6)
        # One row, the mean, would leave all of the spread.
        assert float((part - ours).square().sum()) < 0.6 * float((part - part.mean(0)).square().sum())


@pytest.mark.parametrize("name", ["vq8", "pq2x8"])
def test_few_distinct_labels_are_their_own_codebook(name: str) -> None:
    few = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.5], [0.25, 0.0, 8.0]])
    assert torch.equal(round_trip(name, few[[0, 1, 2, 1, 0, 0]]), few[[0, 1, 2, 1, 0, 0]])


def test_codebooks_depend_on_sample_and_seed_alone() -> None:
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    codec = parse_codec("stored-vq16")
    one, same, other = (fit_codebooks(codec, logits, seed)["book-0"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert sample_size(codec) == 2**14 and sample_size(parse_codec("stored-pq4x1024")) == 2**16


@given(rows(), st.sampled_from(NAMES), st.integers(0, 6))
def test_a_row_is_encoded_whatever_stands_beside_it(logits: Tensor, name: str, cut: int) -> None:
    codec = parse_codec(f"stored-{name}")
    books = fit_codebooks(codec, logits, 0) if codec.has_codebook else None
    encoding = build_encoding(codec, logits.shape[1], books)
    whole = encoding.encode(logits)
    parts = [encoding.encode(part) for part in (logits[:cut], logits[cut:]) if len(part)]
    for key, value in whole.items():
        assert torch.equal(torch.cat([part[key] for part in parts]), value)


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [
        ("fp32", 10, 40),
        ("fp16", 1000, 2000),
        ("int8", 10, 14),
        ("int8", 1000, 1004),
        ("top5", 10, 15),
        ("top10", 1000, 40),
        ("top10+int8", 1000, 34),
        ("top10", 40000, 60),
        ("pruned10", 10, 20),
        ("pruned10+int8", 10, 14),
        ("vq256", 10, 1),
        ("vq257", 10, 2),
        ("pq4x256", 10, 4),
    ],
)
def test_bytes_of_a_stored_view(name: str, classes: int, size: int) -> None:
    assert view_bytes(parse_codec(f"stored-{name}"), classes) == size


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fp32"])
@pytest.mark.parametrize("value", [7e4, -math.inf, math.nan])
def test_refuses_what_it_cannot_hold(name: str, value: float) -> None:
    codec = parse_codec(f"stored-{name}")
    sound = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    encoding = build_encoding(codec, 4, fit_codebooks(codec, sound, 0) if codec.has_codebook else None)
    sound[3, 2] = value
    with pytest.raises(DataError, match="which float16 holds"):
        encoding.encode(sound)


FAULTS = {
    "fp16": ("labels", math.nan, "no finite numbers"),
    "int8": ("steps", 0.0, "not above zero"),
    "top2": ("classes", 4, "indices in 'classes'"),
    "top3": ("classes", 0, "twice"),
    "top2+int8": ("offsets", math.inf, "no finite numbers"),
    "vq8": ("indices", 8, "indices in 'indices'"),
    "pq2x8": ("indices", 200, "indices in 'indices'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_finds_what_no_encoder_writes(name: str) -> None:
    tensor, value, words = FAULTS[name]
    codec = parse_codec(f"stored-{name}")
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    encoding = build_encoding(codec, 4, fit_codebooks(codec, logits, 0) if codec.has_codebook else None)
    code = encoding.encode(logits)
    assert encoding.find_fault(code) is None
    code[tensor][5] = value
    fault = encoding.find_fault(code)
    assert fault is not None and words in fault
