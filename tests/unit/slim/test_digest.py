"""A model's digest is that of its weights and of how blocks use them."""

from __future__ import annotations

import pytest
import torch

from aerogel.errors import DataError
from aerogel.slim.digest import digest_model
from tests.unit.slim.tiny import build


def test_equal_models_share_a_digest() -> None:
    assert digest_model(build()) == digest_model(build())
    assert len(digest_model(build())) == 64


def test_what_matters_changes_it() -> None:
    found = {
        digest_model(model)
        for model in (
            build(),
            build(seed=1),
            build("sam_hq"),
            build(dtype=torch.float32),
            build(dtype=torch.bfloat16),
            build(window_size=2),
            build().vision_encoder,
        )
    }
    assert len(found) == 7
    model = build()
    before = digest_model(model)
    with torch.no_grad():
        model.vision_encoder.layers[2].mlp.lin2.bias[3] += 1e-12
    assert digest_model(model) != before


def test_a_model_of_no_family_has_none() -> None:
    with pytest.raises(DataError, match="known family"):
        digest_model(torch.nn.Linear(2, 2))
