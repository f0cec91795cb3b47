"""Who knows which model."""

from __future__ import annotations

import sys

import pytest
from torch import nn
from transformers import Sam2VisionConfig, Sam2VisionModel

from aerogel.errors import DataError, MissingDependencyError
from aerogel.slim.families import describe, find_family
from aerogel.slim.families.family import require_transformers
from tests.unit.slim.families.tiny_mobile_sam import make_model
from tests.unit.slim.tiny import build


def test_each_model_has_its_family() -> None:
    for name in ("sam", "sam_hq"):
        model = build(name)
        assert find_family(model).name == describe(model).family == name
        assert find_family(model.vision_encoder).name == name


def test_others_are_refused_with_what_is_known() -> None:
    sam2 = Sam2VisionModel.__new__(Sam2VisionModel)
    nn.Module.__init__(sam2)
    for stranger in (sam2, nn.Linear(2, 2), "facebook/sam-vit-base", Sam2VisionConfig):
        with pytest.raises(DataError, match=r"SamModel, SamVisionModel, SamVisionEncoder, SamHQModel"):
            find_family(stranger)


def test_a_sam_with_another_encoder_is_no_vit() -> None:
    with pytest.raises(DataError, match="got MobileSamModel"):
        find_family(make_model())


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    monkeypatch.setitem(sys.modules, "transformers", None)
    for ask in (require_transformers, lambda: describe(model)):
        with pytest.raises(MissingDependencyError, match=r"aerogel\[slim\]"):
            ask()
