"""Networks from transformers have the published sizes and take small images of any side."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from aerogel.condense.borrowed import Borrowed, build_mobilenet_v2, build_swin_t, build_vit_t
from aerogel.errors import ConfigError, MissingDependencyError

BUILDERS = {"mobilenet-v2": (build_mobilenet_v2, 4), "vit-t": (build_vit_t, 6), "swin-t": (build_swin_t, 6)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(name: str, **shape: Any) -> nn.Module:
    build, width = BUILDERS[name]
    torch.manual_seed(0)
    return build(**{"channels": 3, "classes": 5, "size": 32, "width": width, **shape})


@pytest.mark.parametrize(
    ("name", "published"), [("mobilenet-v2", 3_504_872), ("vit-t", 5_717_416), ("swin-t", 28_288_354)]
)
def test_at_224_pixels_they_have_the_published_parameters(name: str, published: int) -> None:
    with torch.device("meta"):
        network = BUILDERS[name][0](channels=3, classes=1000, size=224)
    assert count(network) == published


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 9), (1, 28), (3, 32)])
def test_small_images_of_any_side_are_classified(name: str, channels: int, size: int) -> None:
    network = small(name, channels=channels, size=size)
    logits = network(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", [96, 100])
def test_large_images_are_cut_as_published(size: int) -> None:
    vit: Any = small("vit-t", size=size)
    swin: Any = small("swin-t", size=size)
    assert (vit.model.config.patch_size, swin.model.config.patch_size) == (16, 4)
    assert vit(torch.rand(1, 3, size, size)).shape == swin(torch.rand(1, 3, size, size)).shape == (1, 5)
    published: Any = small("swin-t", size=224)
    assert published.model.config.window_size == 7


def test_thirty_two_pixels_are_cut_fine_enough() -> None:
    vit: Any = small("vit-t")
    assert vit.model.vit.embeddings.position_embeddings.shape[1] == 1 + 8 * 8
    swin: Any = small("swin-t")
    assert (swin.model.config.patch_size, swin.model.config.window_size) == (1, 4)
    mobile: Any = small("mobilenet-v2").eval()
    maps = mobile.model.mobilenet_v2(torch.rand(2, 3, 32, 32)).last_hidden_state
    assert maps.shape[-2:] == (4, 4)
    large: Any = small("mobilenet-v2", size=96).eval()
    assert large.model.mobilenet_v2(torch.rand(1, 3, 96, 96)).last_hidden_state.shape[-2:] == (3, 3)


def test_normalisation_follows_a_tenth_of_a_batch() -> None:
    norms = [module for module in small("mobilenet-v2").modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {norm.momentum for norm in norms} == {0.1}


def test_images_are_padded_right_and_below() -> None:
    seen: list[torch.Tensor] = []

    class Spy(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> Any:
            seen.append(pixel_values)
            return type("Output", (), {"logits": pixel_values.mean((2, 3))})

    images = torch.rand(1, 3, 5, 5)
    Borrowed(Spy(), 8)(images)
    assert seen[0].shape == (1, 3, 8, 8)
    assert torch.equal(seen[0][..., :5, :5], images) and not seen[0][..., 5:, :].any()


@pytest.mark.parametrize("name", ["vit-t", "swin-t"])
def test_a_width_that_heads_cannot_share_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="multiple of 3, such as 9"):
        small(name, width=8)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[condense\]"):
        small("vit-t")


def test_transformers_is_imported_when_asked_for() -> None:
    code = "import sys, aerogel.condense.borrowed; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
