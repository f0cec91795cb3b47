"""The CLIP towers give what transformers' own model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense.families.clip import ClipImageTower, embed_classes, load_clip
from aerogel.errors import DataError
from tests.unit.condense import tiny

MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.write_clip(tmp_path_factory.mktemp("clip")))


def parts(folder: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, CLIPModel

    return CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def images(channels: int, size: int) -> torch.Tensor:
    return torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_model(folder: str, channels: int) -> None:
    model, _ = parts(folder)
    shown = images(channels, 8)
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=(shown.expand(-1, 3, -1, -1) - MEAN) / STD).pooler_output
        theirs = model.visual_projection(pooled)
    ours = load_clip(folder).module(shown)
    assert torch.allclose(ours, theirs / theirs.norm(dim=1, keepdim=True), atol=1e-6)


def test_images_of_another_size_are_resized(folder: str) -> None:
    tower = load_clip(folder).module
    assert isinstance(tower, ClipImageTower)
    small = images(3, 8)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert tower(large).shape == (3, 12)
    assert torch.allclose(
        tower(torch.full((1, 3, 20, 20), 0.3)), tower(torch.full((1, 3, 8, 8), 0.3)), atol=1e-5
    )
    assert (tower(large) * tower(small)).sum(1).min() > 0.9


def test_a_class_is_the_mean_of_its_templates(folder: str) -> None:
    model, tokenizer = parts(folder)
    names, templates = ("dot", "ring"), ("a photo of a {}.", "{}.")
    rows = embed_classes(model, tokenizer, names, templates)
    assert torch.allclose(rows.norm(dim=1), torch.ones(2))
    single = torch.stack([embed_classes(model, tokenizer, names, (template,)) for template in templates])
    mean = single.mean(0)
    assert torch.allclose(rows, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
    assert not torch.allclose(rows[0], rows[1], atol=1e-2)


def test_a_class_does_not_depend_on_the_others(folder: str) -> None:
    model, tokenizer = parts(folder)
    template = ("a photo of a {}.",)
    several = embed_classes(model, tokenizer, tiny.NAMES, template)
    assert torch.allclose(several[1:2], embed_classes(model, tokenizer, tiny.NAMES[1:2], template), atol=1e-6)


def test_low_rank_changes_go_to_queries_and_values(folder: str) -> None:
    backbone = load_clip(folder)
    assert len(backbone.lora_targets) == 4
    assert {name.rsplit(".", 1)[-1] for name in backbone.lora_targets} == {"q_proj", "v_proj"}
    model, _ = parts(folder)
    assert backbone.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    numbers = sum(parameter.numel() for parameter in backbone.module.parameters())
    assert backbone.size_bytes == 2 * numbers
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert backbone.sha256 == load_clip(folder).sha256


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of type 'vit'"):
        load_clip(str(tiny.write_classifier(tmp_path / "vit")))


def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_clip(tmp_path / "clip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        load_clip(str(folder))
