"""Segmenters open by folder, whatever class wrote them; other things are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aerogel.errors import AerogelError, DataError, UnknownNameError
from aerogel.slim import apply_plan
from aerogel.slim.families.opening import open_model
from tests.unit.slim.families.tiny_mobile_sam import make_model
from tests.unit.slim.tiny import build, draw_plan, embed, pixels


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("layout", ["stock", "flex"])
def test_what_was_saved_opens_as_it_was(tmp_path: Path, family: str, layout: str) -> None:
    model = build(family, dtype=torch.float32)
    if layout == "flex":
        model = apply_plan(model, draw_plan(model, {"embedding": 12, "mlp": 9, "blocks.0.mlp": 7}))
    model.save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    assert type(opened) is type(model) and not opened.training
    assert not any(each.requires_grad for each in opened.parameters())
    images = pixels(torch.float32)
    assert torch.equal(embed(opened, images), embed(model, images))


def test_half_precision_is_opened_in_float32(tmp_path: Path) -> None:
    build(dtype=torch.float16).save_pretrained(tmp_path)
    assert {each.dtype for each in open_model(str(tmp_path)).parameters()} == {torch.float32}


def test_a_saved_mobile_sam_opens(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    assert type(opened) is type(model)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    build(dtype=torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    kept = {key: value for key, value in load_file(path).items() if "neck.conv1" not in key}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(DataError, match=r"without vision_encoder\.neck\.conv1\.weight"):
        open_model(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    with pytest.raises(DataError, match="'clip'"):
        open_model(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_folder_without_a_usable_config_is_refused(tmp_path: Path, content: str) -> None:
    if content:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(AerogelError):
        open_model(tmp_path)


def test_a_name_that_does_not_ship_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="aerogel/"):
        open_model("aerogel/sam-gigantic")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b.pth"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="safetensors"):
        open_model(path)
