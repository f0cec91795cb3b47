"""A codebook gives the nearest of its rows, whether these were fitted or drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aerogel.condense.codecs.codebooks import RandomCodebook, are_codebooks, fit_codebooks, sample_size
from aerogel.condense.codecs.encodings import build_encoding
from aerogel.condense.codecs.naming import parse_codec
from tests.unit.condense.codecs.codes import round_trip


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


def draw(count: int, widths: list[float], seed: int = 0) -> Tensor:
    """Draw Gaussian labels of these standard deviations, along axes that are no class's own."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(len(widths), len(widths), generator=generator)).Q
    return torch.randn(count, len(widths), generator=generator) * torch.tensor(widths) @ axes + 0.5


def left(name: str, fitted: Tensor, logits: Tensor) -> float:
    """Return the share of the labels' spread that a codec, fitted to some, leaves of others."""
    codec = parse_codec(f"stored-{name}")
    encoding = build_encoding(codec, logits.shape[1], fit_codebooks(codec, fitted, 0))
    error = encoding.decode(encoding.encode(logits)) - logits
    return float(error.square().sum() / (logits - logits.mean(0)).square().sum())


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_a_drawn_codebook_of_a_gaussian_is_between_the_bound_and_one_fitted(bits: int) -> None:
    widths = [2.0, 1.5, 1.0, 1.0, 0.7, 0.1]
    labels = draw(6000, widths)
    found = left(f"gauss{bits}", labels[:3000], labels[3000:])
    variances = torch.tensor(widths).square()
    # No code of so many bits leaves less than this of a Gaussian (reverse water-filling).
    level = next(
        level
        for level in torch.logspace(1, -6, 10_000)
        if (variances / level).clamp_min(1).log2().sum() / 2 >= bits
    )
    bound = float(torch.minimum(variances, level).sum() / variances.sum())
    assert bound < found < min(1.0, 2.2 * bound)
    if bits <= 8:
        assert left(f"vq{2**bits}", labels[:3000], labels[3000:]) < found


def test_all_of_sixteen_bits_are_used_and_read_back() -> None:
    labels = draw(4000, [1.0] * 10)
    codec = parse_codec("stored-gauss16")
    encoding = build_encoding(codec, 10, fit_codebooks(codec, labels, 0))
    code = encoding.encode(labels)
    assert code["indices"].dtype == torch.int16 and int(code["indices"].min()) < 0
    assert encoding.find_fault(code) is None
    assert isinstance(encoding, RandomCodebook) and encoding.rows.shape == (2**16, 10)
    distance = torch.cdist(labels[:50].double(), encoding.rows)
    assert torch.equal(distance.argmin(1), code["indices"][:50].long() & 0xFFFF)
    assert torch.equal(encoding.decode(code)[:50], encoding.rows[distance.argmin(1)].float())


def test_drawn_rows_are_standard_normal_and_those_of_fewer_bits_the_first_of_more() -> None:
    books = {"mean": torch.zeros(1, 5).half(), "factor": torch.eye(5).half()}
    few, many = (RandomCodebook(5, bits, books).rows for bits in (6, 14))
    assert torch.equal(few, many[:64])
    # Standard errors are 1 / 128 for the mean and for the correlations.
    assert float(many.mean(0).abs().max()) < 5 / 128
    assert float((torch.cov(many.T) - torch.eye(5)).abs().max()) < 8 / 128
    below = (many.unsqueeze(-1) < torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)).double().mean((0, 1))
    assert below.tolist() == pytest.approx([0.1587, 0.5, 0.9772], abs=0.006)


def test_labels_that_do_not_vary_are_their_mean() -> None:
    same = torch.tensor([[1.0, -2.0, 0.5]]).expand(20, 3)
    assert torch.equal(round_trip("gauss8", same), same)
    # Nor do two labels, along all axes but one.
    two = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert float((round_trip("gauss8", two) - two).abs().max()) < 0.05


def test_what_a_drawn_codebook_needs_is_its_mean_and_factor() -> None:
    codec = parse_codec("stored-gauss9")
    books = fit_codebooks(codec, draw(500, [1.0, 2.0, 3.0]), 0)
    assert {name: (book.dtype, tuple(book.shape)) for name, book in books.items()} == {
        "mean": (torch.float16, (1, 3)),
        "factor": (torch.float16, (3, 3)),
    }
    assert are_codebooks(books, codec, 3)
    assert not are_codebooks(books, codec, 4)
    assert not are_codebooks({"mean": books["mean"]}, codec, 3)
    assert not are_codebooks({**books, "more": books["mean"]}, codec, 3)
    assert not are_codebooks({**books, "factor": books["factor"][:2]}, codec, 3)
    assert not are_codebooks({**books, "factor": books["factor"].float()}, codec, 3)
    assert not are_codebooks({**books, "mean": books["mean"] * math.nan}, codec, 3)


def test_books_of_another_shape_are_none() -> None:
    codec = parse_codec("stored-pq2x8")
    books = fit_codebooks(codec, draw(500, [1.0, 2.0, 3.0]), 0)
    assert [tuple(book.shape) for book in books.values()] == [(8, 2), (8, 1)]
    assert are_codebooks(books, codec, 3) and not are_codebooks(books, codec, 5)
    assert not are_codebooks(books, parse_codec("stored-pq2x7"), 3)
    assert not are_codebooks(books, parse_codec("stored-pq3x8"), 3)
    assert not are_codebooks({**books, "book-1": books["book-1"][:0]}, codec, 3)
    assert not are_codebooks({**books, "book-1": books["book-1"].flatten()}, codec, 3)
