"""A backbone is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.condense.families import load_backbone
from aerogel.errors import DataError, UnknownNameError
from tests.unit.condense import tiny


def test_a_name_of_the_zoo_a_folder_and_nothing(tmp_path: Path) -> None:
    assert load_backbone(tiny.BACKBONE).text is None
    assert load_backbone(str(tiny.write_clip(tmp_path / "clip"))).text is not None
    assert load_backbone(tiny.BACKBONE, 3).grid == 3
    assert load_backbone(str(tmp_path / "clip"), size=99).grid == 1
    assert load_backbone(str(tmp_path / "clip"), 2).features == 5 * 12
    with pytest.raises(DataError, match="EfficientNet-Lite0"):
        load_backbone(str(tmp_path / "clip" / "model.safetensors"))
    with pytest.raises(DataError, match="EfficientNet-Lite0"):
        load_backbone(str(tmp_path / "clip" / "config.json"))
    with pytest.raises(UnknownNameError, match="shapes-resnet8"):
        load_backbone("aerogel/shapes-resnet9")
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE"):
        load_backbone("nobody/no-such-model")
