"""The copy that is traced says what the model says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aerogel.errors import DataError
from aerogel.export import subject
from aerogel.export.subject import copy_segmenter, halve, read_side, slice_positions
from tests.unit.slim import tiny


def test_the_copy_answers_as_the_model_to_the_last_bit(model: Any) -> None:
    copied = copy_segmenter(model)
    assert torch.equal(tiny.embed(copied), tiny.embed(model))
    assert torch.equal(tiny.segment(copied), tiny.segment(model))
    assert read_side(copied) == 64


def test_the_copy_is_float32_and_still() -> None:
    model = tiny.build(dtype=torch.float64).train()
    copied = copy_segmenter(model)
    assert {weight.dtype for weight in copied.parameters()} == {torch.float32}
    assert not copied.training
    assert not any(weight.requires_grad for weight in copied.parameters())
    assert model.training


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_positions_are_those_of_transformers(model: Any, size: int) -> None:
    attention = model.vision_encoder.layers[0].attn
    table = torch.randn(2 * size - 1, 6, generator=torch.Generator().manual_seed(size))
    assert torch.equal(
        slice_positions(size, size, table), type(attention).get_rel_pos(attention, size, size, table)
    )


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="9 relative positions for 5 tokens"):
        slice_positions(5, 5, torch.zeros(7, 2))


def test_half_precision_spares_positions(model: Any) -> None:
    halved = halve(model)
    kinds = {name: weight.dtype for name, weight in halved.named_parameters()}
    spared = {name for name, dtype in kinds.items() if dtype == torch.float32}
    assert spared == {"shared_image_embedding.positional_embedding"}, "the other is tied to it"
    assert set(kinds.values()) == {torch.float16, torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_what_is_no_segmenter(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (nn.Linear(2, 2), model.vision_encoder, object()):
        with pytest.raises(DataError, match="without vision_encoder"):
            copy_segmenter(other)
    with pytest.raises(DataError, match="SAM-HQ"):
        copy_segmenter(tiny.build("sam_hq"))
    stranger = copy_segmenter(model)
    stranger.config.model_type = "sam9"
    with pytest.raises(DataError, match="of type 'sam9'"):
        copy_segmenter(stranger)
    monkeypatch.setattr(subject, "LARGEST_BYTES", 1000)
    with pytest.raises(DataError, match="one ONNX file can hold"):
        copy_segmenter(model)
