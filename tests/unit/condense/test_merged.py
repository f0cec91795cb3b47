"""A label generator with its changes merged computes the same, and its gradients are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.merged import Merged
from aerogel.condense.projector import adapt, build_projector
from tests.unit.condense import tiny

DATA = tiny.draw(4, size=16)


def change(backbone: Backbone, head_rank: Any = "full", templates: tuple[str, ...] = ("a {}",)) -> PeftModel:
    """Return a generator in double precision whose low-rank changes and biases are far from zero."""
    plain = build_projector(backbone, DATA.images, DATA.labels, tiny.NAMES, templates)
    adapted = adapt(plain, backbone, ProjectorConfig(rank=2, head_rank=head_rank), 3, seed=2).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return adapted


def views(size: int = 16) -> torch.Tensor:
    return torch.rand(5, 1, size, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def gradients(forward: Any, adapted: PeftModel, images: torch.Tensor) -> list[torch.Tensor]:
    trained = [value for value in adapted.parameters() if value.requires_grad]
    loss = functional.mse_loss(forward(images), torch.ones(len(images), 3))
    return list(torch.autograd.grad(loss, trained))


def require_same(adapted: PeftModel, norms: Mapping[str, str], images: torch.Tensor) -> None:
    merged = Merged(adapted, norms)
    torch.testing.assert_close(merged(images), adapted(images), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(merged(images), adapted.get_base_model()(images) * 0)
    pairs = zip(gradients(merged, adapted, images), gradients(adapted, adapted, images), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        assert theirs.abs().max() > 0


@pytest.mark.parametrize("head_rank", ["full", 1])
@pytest.mark.parametrize("folded", [True, False])
def test_the_shipped_backbone(head_rank: Any, folded: bool) -> None:
    backbone = load_backbone(tiny.BACKBONE, size=16)
    assert len(backbone.norms) == 7
    require_same(change(backbone, head_rank), backbone.norms if folded else {}, views())


def test_a_convolution_with_a_bias() -> None:
    require_same(change(tiny.stripes()), {"conv": "norm"}, views(8))


def test_a_clip(tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny.write_clip(tmp_path / "clip")))
    require_same(change(backbone, head_rank=1), backbone.norms, views(8).expand(-1, 3, -1, -1))


def test_what_is_merged_follows_the_adapter() -> None:
    adapted = change(tiny.stripes())
    merged, images = Merged(adapted, {"conv": "norm"}), views(8)
    before = merged(images)
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value.mul_(0.5)
    assert not torch.allclose(merged(images), before)
    torch.testing.assert_close(merged(images), adapted(images), rtol=1e-5, atol=1e-5)


def test_parameters_are_the_adapters_own() -> None:
    adapted = change(tiny.stripes())
    merged = Merged(adapted, {"conv": "norm"})
    assert {id(value) for value in merged.parameters()} == {id(value) for value in adapted.parameters()}


def test_a_layer_that_is_not_there() -> None:
    backbone = replace(tiny.stripes(), norms={"other": "norm"})
    with pytest.raises(AttributeError, match="other"):
        Merged(change(backbone), backbone.norms)
