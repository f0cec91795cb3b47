"""What lies beside the graphs fits them, and transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SamConfig, SamImageProcessorPil

from aerogel.export import Exported
from aerogel.export.bundle import describe_model, describe_processor, write_card, write_configs
from aerogel.slim.canvas import Canvas
from aerogel.zoo.photos import open_photos
from tests.unit.slim.families.tiny_mobile_sam import make_model


def test_the_processor_prepares_photos_as_the_model_saw_them(exported: Exported, model: Any) -> None:
    processor = SamImageProcessorPil.from_pretrained(exported.folder)
    for photo in open_photos("aerogel/samples", limit=2):
        given = processor(photo.image, return_tensors="pt")["pixel_values"]
        placed, _ = Canvas.of(model).place(photo.image)
        assert given.shape == placed.shape == (1, 3, 64, 64)
        assert torch.allclose(given, placed, atol=1e-5)


@pytest.mark.parametrize("side", [64, 1024])
def test_the_processor_has_the_fields_that_browsers_read(side: int) -> None:
    fields = describe_processor(side)
    assert fields["image_processor_type"] == "SamImageProcessor"
    assert fields["processor_class"] == "SamProcessor"
    assert fields["size"] == {"longest_edge": side}
    assert fields["pad_size"] == {"height": side, "width": side}
    assert fields["mask_size"] == {"longest_edge": side // 4}
    assert fields["resample"] == 2


def test_any_model_is_a_sam_to_the_browser(tmp_path: Path, model: Any) -> None:
    for each in (model, make_model()):
        fields = describe_model(each)
        assert fields["model_type"] == "sam"
        assert fields["architectures"] == ["SamModel"]
        assert SamConfig.from_dict(fields).vision_config.image_size == 64
    write_configs(make_model(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == describe_model(make_model())
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == describe_processor(64)


def test_the_card_lists_the_graphs_and_how_to_load_them(tmp_path: Path) -> None:
    write_card(tmp_path, {"onnx/vision_encoder.onnx": 12_345}, boxes=False)
    text = (tmp_path / "README.md").read_text()
    assert "| `onnx/vision_encoder.onnx` | 12.3 kB |" in text
    assert "{ dtype: 'fp32' }" in text
    assert "input_boxes" not in text
    write_card(tmp_path, {}, boxes=True)
    assert "subfolder: 'onnx-boxes' }" in (tmp_path / "README.md").read_text()
