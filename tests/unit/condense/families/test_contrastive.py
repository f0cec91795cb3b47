"""With a text tower the label generator starts as the model's own zero-shot classifier (Proposition 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.families.contrastive import ClassWords, cut_patches
from aerogel.condense.projector import adapt, build_projector
from aerogel.errors import DataError
from tests.unit.condense import tiny
from tests.unit.condense.families import tiny_towers

TEMPLATE = ("a photo of a {}.",)
MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    path = tmp_path_factory.mktemp(request.param)
    return request.param, str(tiny_towers.write_network(path, request.param))


def theirs(kind: str, folder: str, images: torch.Tensor) -> Any:
    """Return the output of transformers' own processor, tokenizer and forward pass."""
    import transformers

    model = getattr(transformers, MODELS[kind]).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    shown = [(image * 255.0).round().to(torch.uint8).numpy() for image in images]
    tokens = tokenizer(
        [TEMPLATE[0].format(name) for name in tiny.NAMES],
        padding=True if kind == "clip" else "max_length",
        max_length=None if kind == "clip" else 12,
        return_tensors="pt",
    )
    mask = {"attention_mask": tokens["attention_mask"]} if kind == "clip" else {}
    with torch.no_grad():
        return model(input_ids=tokens["input_ids"], **mask, **processor(shown, return_tensors="pt"))


def generator(backbone: Backbone) -> torch.nn.Module:
    data = tiny.draw(1, channels=3, size=tiny_towers.SIDE)
    plain = build_projector(backbone, data.images, data.labels, tiny.NAMES, TEMPLATE)
    return adapt(plain, backbone, ProjectorConfig(rank=2, head_rank=2), len(tiny.NAMES)).eval()


@pytest.mark.parametrize("grid", [1, 2])
def test_an_adapter_of_zeros_gives_the_models_own_logits(folder: tuple[str, str], grid: int) -> None:
    images = tiny_towers.draw()
    expected = theirs(*folder, images).logits_per_image
    with torch.no_grad():
        found = generator(load_backbone(folder[1], grid))(images)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_features_have_length_one_and_the_image_comes_first(folder: tuple[str, str]) -> None:
    images = tiny_towers.draw()
    one, two = load_backbone(folder[1]), load_backbone(folder[1], 2)
    assert (one.grid, two.features) == (1, 5 * one.features)
    whole, cells = one.module(images), two.module(images)
    assert torch.allclose(whole, theirs(*folder, images).image_embeds, atol=1e-6)
    assert torch.allclose(cells[:, : one.features], whole, atol=1e-6)
    lengths = cells[:, one.features :].unflatten(1, (one.features, 4)).norm(dim=1)
    assert torch.allclose(lengths, torch.ones(3, 4), atol=1e-5)
    assert one.sha256 == two.sha256
    assert one.unit_features


def test_low_rank_changes_go_to_queries_and_values(folder: tuple[str, str]) -> None:
    names = load_backbone(folder[1]).lora_targets
    assert {name.rsplit(".", 1)[-1] for name in names} == {"q_proj", "v_proj"}
    assert not any("pooling" in name or "text" in name for name in names)
    assert len(names) == (4 if folder[0] == "clip" else 2)


def test_a_class_is_the_mean_of_its_templates_and_does_not_depend_on_others(folder: tuple[str, str]) -> None:
    words = load_backbone(folder[1]).text
    assert isinstance(words, ClassWords)
    names, templates = ("dot", "ring"), ("a photo of a {}.", "{}.")
    rows = words(names, templates)
    assert torch.allclose(rows.norm(dim=1), torch.ones(2))
    mean = torch.stack([words(names, (template,)) for template in templates]).mean(0)
    assert torch.allclose(rows, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
    assert not torch.allclose(rows[0], rows[1], atol=1e-2)
    assert torch.allclose(words(names[1:], templates), rows[1:], atol=1e-6)


def test_a_long_name_is_cut_to_what_the_text_tower_takes(folder: tuple[str, str]) -> None:
    words = load_backbone(folder[1]).text
    assert words is not None
    assert torch.isfinite(words(("dot " * 40,), TEMPLATE)).all()


def test_patches_are_cut_as_the_processor_does(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    tiny_towers.write_processor(tmp_path, "Siglip2", image_mean=[0, 0, 0], image_std=[1, 1, 1])
    images = tiny_towers.draw(count=2)
    shown = [(image * 255.0).round().to(torch.uint8).numpy() for image in images]
    expected = AutoImageProcessor.from_pretrained(tmp_path)(shown, return_tensors="pt")
    found = cut_patches(images, 4)
    assert torch.allclose(found["pixel_values"], expected["pixel_values"], atol=1e-6)
    assert torch.equal(found["spatial_shapes"], expected["spatial_shapes"])
    assert torch.equal(found["pixel_attention_mask"], expected["pixel_attention_mask"].int())


def test_a_siglip_without_its_pooling_head_is_refused(tmp_path: Path) -> None:
    settings = {**tiny_towers.MODELS["siglip"][1]["vision_config"], "vision_use_head": False}
    tiny_towers.write_network(tmp_path, "siglip", vision_config=settings)
    with pytest.raises(DataError, match="pooling head"):
        load_backbone(str(tmp_path))
