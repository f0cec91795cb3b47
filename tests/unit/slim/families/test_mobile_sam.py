"""MobileSAM loads what was published, and answers as transformers' SAM does."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from aerogel.errors import ConfigError, DataError, IntegrityError, MismatchError, MissingDependencyError
from aerogel.slim.families.mobile_sam import (
    MobileSamConfig,
    MobileSamModel,
    build_processor,
    load_mobile_sam,
)
from tests.unit.slim.families.tiny_mobile_sam import SIZE, make_config, make_model, publish, write_checkpoint

CHECKPOINT = Path(os.environ.get("AEROGEL_DATA", "")) / "models" / "mobile_sam.fp16.safetensors"


def pixels(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def equal(one: MobileSamModel, other: MobileSamModel) -> bool:
    theirs = other.state_dict()
    return one.state_dict().keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) and tensor.dtype == theirs[name].dtype
        for name, tensor in one.state_dict().items()
    )


def test_published_weights_come_back_to_the_last_bit(tmp_path: Path) -> None:
    model = make_model()
    path = write_checkpoint(tmp_path / "mobile_sam.safetensors", publish(model))
    loaded = load_mobile_sam(path, make_config())
    assert equal(loaded, model)
    assert not loaded.training
    assert torch.equal(loaded.get_image_embeddings(pixels()), model.get_image_embeddings(pixels()))
    assert equal(load_mobile_sam(str(tmp_path), make_config()), model)


def test_half_precision_is_read_and_given(tmp_path: Path) -> None:
    half = make_model().half()
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in publish(half).items()
    }
    path = write_checkpoint(tmp_path / "half.safetensors", weights)
    assert equal(load_mobile_sam(path, make_config()), half.float())
    assert equal(load_mobile_sam(path, make_config(), dtype=torch.float16), half.half())


def test_a_file_without_the_classifier_is_whole(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in publish(make_model()).items() if "head." not in name[:24]}
    assert not any("norm_head" in name for name in weights)
    path = write_checkpoint(tmp_path / "bare.safetensors", weights)
    assert equal(load_mobile_sam(path, make_config()), make_model())


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    weights = publish(make_model())
    lost = ["image_encoder.layers.1.blocks.0.attn.attention_biases", "mask_decoder.iou_token.weight"]
    for name in lost:
        del weights[name]
    weights["mask_decoder.hf_token.weight"] = torch.zeros(1)
    path = write_checkpoint(tmp_path / "odd.safetensors", weights)
    with pytest.raises(MismatchError) as told:
        load_mobile_sam(path, make_config())
    for name in [*lost, "mask_decoder.hf_token.weight left over"]:
        assert name in str(told.value)
    with pytest.raises(MismatchError, match=r"without .* and \d+ more"):
        load_mobile_sam(write_checkpoint(path, {"x": torch.zeros(1)}), make_config())


def test_other_shapes_are_named(tmp_path: Path) -> None:
    weights = publish(make_model())
    weights["image_encoder.neck.0.weight"] = torch.zeros(32, 17, 1, 1)
    path = write_checkpoint(tmp_path / "wide.safetensors", weights)
    with pytest.raises(MismatchError, match=r"neck\.0\.weight \[32, 17, 1, 1\] for \[32, 16, 1, 1\]"):
        load_mobile_sam(path, make_config())


def test_pickles_and_unknown_files_are_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "mobile_sam.pt"
    pickled.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"save_file\(torch\.load\(path, weights_only=True\)"):
        load_mobile_sam(pickled)
    other = tmp_path / "mobile_sam.onnx"
    other.write_bytes(b"\x08")
    with pytest.raises(DataError, match=r"as safetensors; got .*mobile_sam\.onnx"):
        load_mobile_sam(other)
    damaged = tmp_path / "mobile_sam.safetensors"
    damaged.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(IntegrityError, match=r"a whole safetensors file at .*mobile_sam\.safetensors"):
        load_mobile_sam(damaged)
    with pytest.raises(DataError, match="no file at"):
        load_mobile_sam(tmp_path / "nothing.safetensors")


def test_a_folder_holds_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one \.safetensors file in .*; got none"):
        load_mobile_sam(tmp_path)
    for name in ("a", "b"):
        write_checkpoint(tmp_path / f"{name}.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(DataError, match=r"got a\.safetensors, b\.safetensors"):
        load_mobile_sam(tmp_path)


def test_a_saved_model_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    boxes = torch.tensor([[[4.0, 8.0, 40.0, 60.0]]])
    masks = model(pixels(), input_boxes=boxes).pred_masks
    ours, theirs = load_mobile_sam(tmp_path), MobileSamModel.from_pretrained(tmp_path)
    for loaded in (ours, theirs):
        assert equal(loaded, model)
        assert not loaded.training
        assert loaded.config.vision_config.tiny_vit() == model.config.vision_config.tiny_vit()
    assert torch.equal(ours(pixels(), input_boxes=boxes).pred_masks, masks)
    # These weights lie in memory as they do in the file, and sums over them may be taken in another order.
    assert torch.allclose(theirs(pixels(), input_boxes=boxes).pred_masks, masks, atol=1e-5)
    assert load_mobile_sam(tmp_path, dtype=torch.float16).dtype == torch.float16


def test_a_damaged_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "sam"}))
    with pytest.raises(MismatchError, match="one of type sam"):
        load_mobile_sam(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(IntegrityError, match="the configuration of a model in"):
        load_mobile_sam(tmp_path)
    for fields, told in (
        ({"mask_decoder_config": 3}, "the fields of a MobileSamConfig in"),
        ({"vision_config": config["vision_config"] | {"depths": "3"}}, "depths=3, where four"),
        ({"vision_config": config["vision_config"] | {"num_pos_feats": "3"}}, r"channels of \[32, '33'\]"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | fields))
        with pytest.raises(ConfigError, match=told):
            load_mobile_sam(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = make_model().state_dict()
    del weights["vision_encoder.neck.conv1.weight"]
    del weights["prompt_encoder.shared_embedding.positional_embedding"]
    write_checkpoint(
        tmp_path / "model.safetensors", {name: tensor.clone() for name, tensor in weights.items()}
    )
    with pytest.raises(MismatchError, match=r"without vision_encoder\.neck\.conv1\.weight"):
        load_mobile_sam(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no file at .*model\.safetensors"):
        load_mobile_sam(tmp_path)


def stock(model: MobileSamModel) -> SamModel:
    """Return transformers' own SAM with this model's prompt encoder and mask decoder."""
    config = SamConfig(
        vision_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": SIZE,
            "output_channels": 32,
            "num_pos_feats": 16,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config=model.config.prompt_encoder_config.to_dict(),
        mask_decoder_config=model.config.mask_decoder_config.to_dict(),
    )
    theirs = SamModel(config).eval()
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("vision")}
    missing, unexpected = theirs.load_state_dict(own, strict=False)
    assert unexpected == []
    assert all(name.startswith("vision_encoder.") for name in missing)
    return theirs


@pytest.mark.parametrize("multimask", [True, False])
@torch.no_grad()
def test_prompts_and_masks_are_those_of_transformers(multimask: bool) -> None:
    model = make_model()
    theirs = stock(model)
    embeddings = model.get_image_embeddings(pixels(2))
    assert embeddings.shape == (2, 32, 4, 4)
    assert torch.equal(
        model.get_image_wide_positional_embeddings(), theirs.get_image_wide_positional_embeddings()
    )
    points = torch.tensor([[[[5.0, 9.0], [40.0, 20.0]], [[60.0, 3.0], [1.0, 1.0]]]]).repeat(2, 1, 1, 1)
    labels = torch.tensor([[[1, 0], [1, -10]]]).repeat(2, 1, 1)
    boxes = torch.tensor([[[4.0, 8.0, 40.0, 60.0], [0.0, 0.0, 64.0, 32.0]]]).repeat(2, 1, 1)
    hints = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    prompts: list[dict[str, Tensor]] = [
        {"input_points": points},
        {"input_points": points, "input_labels": labels},
        {"input_boxes": boxes},
        {"input_points": points, "input_labels": labels, "input_boxes": boxes, "input_masks": hints},
    ]
    for prompt in prompts:
        ours = model(pixels(2), multimask_output=multimask, **prompt)
        again = model(image_embeddings=embeddings, multimask_output=multimask, **prompt)
        expected = theirs(image_embeddings=embeddings, multimask_output=multimask, **prompt)
        assert isinstance(ours, SamImageSegmentationOutput)
        assert ours.pred_masks.shape == (2, 2, 3 if multimask else 1, 16, 16)
        for answer in (ours, again):
            assert torch.equal(answer.pred_masks, expected.pred_masks)
            assert torch.equal(answer.iou_scores, expected.iou_scores)


def test_gradients_reach_the_encoder_through_the_masks() -> None:
    model = make_model()
    model(pixels(), input_boxes=torch.tensor([[[4.0, 8.0, 40.0, 60.0]]])).pred_masks.sum().backward()
    slopes = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    reached = [name for name, slope in slopes.items() if bool(slope.any())]
    wanted = [name for name, _ in model.named_parameters() if name.startswith("vision_encoder.")]
    assert set(wanted) <= set(reached)
    assert not model.get_image_embeddings(pixels()).requires_grad
    assert model.vision_encoder(pixels()).requires_grad


def test_a_new_model_is_at_rest() -> None:
    model = MobileSamModel(make_config())
    assert model.get_input_embeddings() is model.vision_encoder.stem
    assert not any(
        bool(weight.any()) for name, weight in model.named_parameters() if name.endswith("attention.biases")
    )
    positions = model.prompt_encoder.shared_embedding.positional_embedding
    assert positions is model.shared_image_embedding.positional_embedding
    assert MobileSamConfig().vision_config.image_size == 1024


@pytest.mark.parametrize(
    ("part", "field", "value", "told"),
    [
        ("vision_config", "output_channels", 16, r"got channels of \[16, 32\]; what"),
        ("vision_config", "num_pos_feats", 8, r"got channels of \[16, 32\]; what"),
        ("mask_decoder_config", "hidden_size", 64, r"got channels of \[32, 64\]; what"),
        ("vision_config", "image_size", 80, "got images of 80 and 64 pixels, 16 of them a position; what"),
        ("prompt_encoder_config", "patch_size", 8, "got images of 64 and 64 pixels, 8 of them"),
        ("vision_config", "depths", [1, 1, 1], r"depths=\(1, 1, 1\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, field: str, value: Any, told: str) -> None:
    config = make_config()
    setattr(getattr(config, part), field, value)
    with pytest.raises(ConfigError, match=told):
        MobileSamModel(config)


def test_images_of_another_size_are_refused() -> None:
    model = make_model()
    other = torch.zeros(1, 3, 32, 32)
    for call in (model.get_image_embeddings, model):
        with pytest.raises(DataError, match=r"pixels \[B, 3, 64, 64\]; got a shape of \[1, 3, 32, 32\]"):
            call(other)
    assert model.vision_encoder(other).shape == (1, 32, 2, 2)
    with pytest.raises(ValueError, match="Either pixel_values or image_embeddings"):
        model()
    with pytest.raises(ValueError, match="Only one of"):
        model(pixels(), image_embeddings=torch.zeros(1, 32, 4, 4))


def test_the_processor_normalises_then_fills_up_with_zeros() -> None:
    image = Image.fromarray(np.full((40, 80, 3), (200, 100, 50), dtype=np.uint8))
    inputs = build_processor(SIZE)(
        images=image, input_boxes=[[[10.0, 20.0, 70.0, 30.0]]], return_tensors="pt"
    )
    assert inputs["pixel_values"].shape == (1, 3, SIZE, SIZE)
    for channel, (value, mean, std) in enumerate(
        [(200, 123.675, 58.395), (100, 116.28, 57.12), (50, 103.53, 57.375)]
    ):
        plane = inputs["pixel_values"][0, channel]
        assert torch.allclose(plane[:32], torch.full((32, 64), (value - mean) / std), atol=1e-5)
        assert not bool(plane[32:].any())
    assert inputs["input_boxes"].tolist() == [[[8.0, 16.0, 56.0, 24.0]]]
    model = make_model()
    output = model(inputs["pixel_values"], input_boxes=inputs["input_boxes"].float())
    masks = build_processor(SIZE).image_processor.post_process_masks(
        output.pred_masks.detach(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    assert masks[0].shape == (1, 3, 40, 80)
    assert masks[0].dtype == torch.bool


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "aerogel.slim.families.mobile_sam")
    with pytest.raises(MissingDependencyError, match=r"aerogel\[slim\]"):
        importlib.import_module("aerogel.slim.families.mobile_sam")


@pytest.mark.slow
@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="AEROGEL_DATA does not name a folder with MobileSAM")
@torch.no_grad()
def test_the_published_model_segments_a_disc() -> None:
    model = load_mobile_sam(CHECKPOINT)
    assert sum(weight.numel() for weight in model.parameters()) == 9_808_708
    side = 512
    y, x = np.mgrid[:side, :side]
    disc = (y - 230) ** 2 + (x - 300) ** 2 < 120**2
    grain = np.random.default_rng(0).normal(0, 8, (side, side, 3))
    colours = np.where(disc[..., None], (200, 60, 40), (70, 120, 90)) + grain
    image = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    processor = build_processor()
    prompts: list[dict[str, Any]] = [
        {"input_boxes": [[[180.0, 110.0, 420.0, 350.0]]]},
        {"input_points": [[[[300.0, 230.0]]]]},
    ]
    embeddings = model.get_image_embeddings(processor(images=image, return_tensors="pt")["pixel_values"])
    assert embeddings.shape == (1, 256, 64, 64)
    for prompt in prompts:
        inputs = processor(images=image, return_tensors="pt", **prompt)
        name = next(iter(prompt))
        output = model(image_embeddings=embeddings, multimask_output=False, **{name: inputs[name].float()})
        masks = processor.image_processor.post_process_masks(
            output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        found = masks[0][0, 0].numpy()
        assert (found & disc).sum() / (found | disc).sum() > 0.95
