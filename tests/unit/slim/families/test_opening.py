"""Segmenters open by folder, whatever class wrote them; other things are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SamModel

from aerogel.errors import AerogelError, DataError, UnknownNameError
from aerogel.slim import apply_plan
from aerogel.slim.families.opening import open_model, read_dtype
from aerogel.zoo.cards import open_weights
from tests.unit.slim.families.tiny_mobile_sam import make_model
from tests.unit.slim.tiny import build, draw_plan, embed, pixels

NANO = "aerogel/sam-nano"


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


def test_the_shipped_segmenter_opens_by_its_name_in_float32() -> None:
    opened = open_model(NANO)
    assert type(opened).__name__ == "SamModel" and not opened.training
    assert {each.dtype for each in opened.parameters()} == {torch.float32}
    assert not any(each.requires_grad for each in opened.parameters())
    vision = opened.config.vision_config
    assert (vision.image_size, vision.num_hidden_layers, vision.num_attention_heads) == (384, 12, 6)
    assert (vision.hidden_size, vision.mlp_dim) == (120, 480)
    assert read_dtype(NANO) is torch.float16


def test_plain_transformers_opens_the_folder_of_the_shipped_segmenter() -> None:
    with open_weights(NANO, "segmenter") as path:
        stock = SamModel.from_pretrained(path.parent, dtype=torch.float32).eval()
    images = torch.rand(1, 3, 384, 384, generator=torch.Generator().manual_seed(0))
    assert torch.equal(embed(stock, images), embed(open_model(NANO), images))


def test_a_folder_called_like_the_shipped_segmenter_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build(dtype=torch.float32).save_pretrained(NANO)
    assert open_model(NANO).config.vision_config.hidden_size == 24


def test_a_name_that_does_not_ship_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="aerogel/"):
        open_model("aerogel/sam-gigantic")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b.pth"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="safetensors"):
        open_model(path)


@pytest.mark.parametrize("family", ["sam", "sam_hq"])
@pytest.mark.parametrize("layout", ["stock", "flex"])
@pytest.mark.parametrize("bare", [False, True])
def test_an_encoder_alone_opens_as_it_was(tmp_path: Path, family: str, layout: str, bare: bool) -> None:
    whole = build(family, dtype=torch.float32)
    model = whole.vision_encoder
    if not bare:
        model = load_class(f"{type(whole).__name__.removesuffix('Model')}VisionModel")(model.config)
        model.vision_encoder.load_state_dict(whole.vision_encoder.state_dict())
    if layout == "flex":
        model = apply_plan(model, draw_plan(model, {"embedding": 12, "mlp": 9, "blocks.0.mlp": 7}))
    model.save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    assert type(opened) is type(model) and not opened.training
    assert torch.equal(embed(opened, pixels(torch.float32)), embed(model.eval(), pixels(torch.float32)))


def load_class(name: str) -> Any:
    from importlib import import_module

    folder = "sam_hq" if "HQ" in name else "sam"
    return getattr(import_module(f"transformers.models.{folder}.modeling_{folder}"), name)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "no/such/folder", "~/sam", ""])
def test_what_is_neither_there_nor_a_hub_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(DataError, match=r"which does not exist.*one slash"):
        open_model(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_type_of_the_file_is_known(tmp_path: Path, dtype: torch.dtype) -> None:
    build(dtype=dtype).save_pretrained(tmp_path)
    assert read_dtype(tmp_path) is dtype


@pytest.mark.parametrize(("stored", "found"), [("float16", torch.float16), ("int8", None), ("no", None)])
def test_an_older_config_may_say_the_type_and_none_has_to(
    tmp_path: Path, stored: str, found: torch.dtype | None
) -> None:
    config = {"model_type": "sam", "torch_dtype": stored}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_dtype(tmp_path) is found
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}), encoding="utf-8")
    assert read_dtype(tmp_path) is None


def test_a_checkpoint_does_not_say_its_type_and_what_does_not_ship_has_none(tmp_path: Path) -> None:
    (tmp_path / "mobile.safetensors").write_bytes(b"x")
    assert read_dtype(tmp_path / "mobile.safetensors") is None
    with pytest.raises(UnknownNameError):
        read_dtype("aerogel/sam-gigantic")
