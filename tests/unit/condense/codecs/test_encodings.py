"""Every codec keeps the contract: a row is encoded whatever stands beside it, and what is wrong is found."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aerogel.condense.codecs.codebooks import fit_codebooks
from aerogel.condense.codecs.contract import ENCODINGS
from aerogel.condense.codecs.encodings import build_encoding, view_bytes
from aerogel.condense.codecs.naming import FORMS, parse_codec
from aerogel.errors import DataError
from tests.unit.condense.codecs.codes import rows

NAMES = ("fp32", "fp16", "int8", "top1", "top3", "top3+fp32", "top3+int8", "vq8", "pq2x8", "gauss6")


def test_every_part_that_is_written_has_its_encoding() -> None:
    written = {kind for kind in FORMS.names() if FORMS.get(kind).role != "views"}
    assert set(ENCODINGS.names()) == written


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
        ("gauss8", 10, 1),
        ("gauss16", 100, 2),
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
    "gauss5": ("indices", 32, "indices in 'indices'"),
    "gauss11": ("indices", -1, "indices in 'indices'"),
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
