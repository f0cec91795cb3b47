"""Every family gives features, takes low-rank changes where it should, and keeps them through a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.families.architectures import (
    ARCHITECTURES,
    is_attention_or_mlp,
    is_query_or_value,
    is_spatial,
    is_ungrouped,
)
from aerogel.condense.merged import Merged
from aerogel.condense.projector import adapt, build_projector, load_adapter, save_adapter
from tests.unit.condense import tiny
from tests.unit.condense.families import tiny_towers

DATA = tiny.draw(2, channels=3, size=tiny_towers.SIDE)
TEMPLATES = ("a photo of a {}.",)
LAYERS = {
    "clip": 4,
    "siglip": 2,
    "siglip2": 2,
    "vit": 6,
    "deit": 6,
    "beit": 6,
    "dinov2": 6,
    "dinov2_with_registers": 6,
    "swin": 12,
    "swinv2": 12,
    "resnet": 2,
    "convnext": 5,
    "convnextv2": 5,
    "mobilenet_v2": 35,
    "efficientnet": 5,
}
NORMS = {"resnet": 9, "mobilenet_v2": 52, "efficientnet": 7}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Backbone]:
    folder = tiny_towers.write_network(tmp_path_factory.mktemp(request.param), request.param)
    return request.param, load_backbone(str(folder), 2)


def plain(backbone: Backbone) -> nn.Module:
    return build_projector(backbone, DATA.images, DATA.labels, tiny.NAMES, TEMPLATES)


def change(backbone: Backbone) -> PeftModel:
    return adapt(plain(backbone), backbone, ProjectorConfig(rank=2, head_rank=2), 3, seed=1)  # type: ignore[arg-type]


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(tiny_towers.draw())
    return found


def test_features_have_the_shape_that_is_said_and_see_the_image(family: tuple[str, Backbone]) -> None:
    _, backbone = family
    images = tiny_towers.draw()
    with torch.no_grad():
        found = backbone.module(images)
        swapped = backbone.module(images.roll(tiny_towers.SIDE // 2, 3))
        grey, larger = (
            backbone.module(images[:, :1]),
            backbone.module(functional.interpolate(images, scale_factor=3)),
        )
    assert found.shape == (3, backbone.features)
    assert found.dtype == torch.float32
    assert grey.shape == larger.shape == found.shape
    assert found.std(0).max() > 1e-3
    assert not torch.allclose(found, swapped, atol=1e-3)


def test_low_rank_changes_go_where_the_family_says(family: tuple[str, Backbone]) -> None:
    kind, backbone = family
    layers = dict(backbone.module.named_modules())
    assert len(backbone.lora_targets) == LAYERS[kind]
    assert len(backbone.norms) == NORMS.get(kind, 0)
    assert len(backbone.norms) == sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.values())
    assert not any("patch_embed" in name for name in backbone.lora_targets)
    assert all(getattr(layers[name], "groups", 1) == 1 for name in backbone.lora_targets)
    assert not any(name.endswith("head") for name in layers), "peft would take it for the generator's head"


def test_an_adapter_of_zeros_is_the_plain_generator_and_a_step_changes_it(
    family: tuple[str, Backbone],
) -> None:
    _, backbone = family
    adapted, before = change(backbone), logits(plain(backbone))
    assert torch.allclose(logits(adapted), before, atol=1e-5)
    adapted.train()
    trained = [value for value in adapted.parameters() if value.requires_grad]
    functional.mse_loss(adapted(tiny_towers.draw()), torch.ones(3, 3)).backward()
    changes = [value for name, value in adapted.named_parameters() if "lora_B" in name]
    assert len(changes) == len(backbone.lora_targets) + 1
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in changes)
    torch.optim.SGD(trained, lr=0.1).step()
    assert not torch.allclose(logits(adapted), before, atol=1e-5)


def test_what_was_trained_folds_and_is_saved_to_the_last_bit(
    family: tuple[str, Backbone], tmp_path: Path
) -> None:
    _, backbone = family
    adapted, generator = change(backbone), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
    found = logits(adapted)
    scale = max(1.0, float(found.abs().max()))
    folded = logits(Merged(adapted, backbone.norms))
    assert torch.allclose(folded, found, atol=1e-4 * scale, rtol=0)
    save_adapter(adapted, tmp_path, torch.float32)
    again = load_adapter(plain(backbone), tmp_path)  # type: ignore[arg-type]
    assert torch.equal(logits(again), found)
    assert torch.allclose(logits(again.merge_and_unload()), found, atol=1e-4 * scale, rtol=0)


def test_every_family_is_tested() -> None:
    assert set(LAYERS) == set(ARCHITECTURES) == {"clip", *tiny_towers.MODELS}


def test_layers_are_told_apart() -> None:
    linear, wide, three = nn.Linear(2, 2), nn.Conv2d(2, 2, 7), nn.Conv2d(2, 2, 3)
    grouped, spread = nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 3, dilation=2)
    assert is_query_or_value("a.v_proj", linear)
    assert not is_query_or_value("a.k_proj", linear)
    assert is_attention_or_mlp("layers.0.mlp.fc1", linear)
    for name in ("embeddings.patch_embeddings.projection", "pooler.dense", "downsample.reduction"):
        assert not is_attention_or_mlp(name, linear)
    assert not is_attention_or_mlp("layers.0.mlp.fc1", three)
    assert is_spatial("a", three)
    assert not any(is_spatial("a", layer) for layer in (linear, wide, grouped, spread))
    assert all(is_ungrouped("a", layer) for layer in (linear, wide, three))
    assert not any(is_ungrouped("a", layer) for layer in (grouped, spread, nn.ReLU()))
    assert not is_ungrouped("squeeze_excite.reduce", three)
    assert not is_ungrouped("embeddings.patch_embeddings", three)
