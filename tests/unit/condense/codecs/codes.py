"""Rows of logits to encode, and the way there and back."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from aerogel.condense.codecs.codebooks import fit_codebooks
from aerogel.condense.codecs.encodings import build_encoding
from aerogel.condense.codecs.naming import parse_codec


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
