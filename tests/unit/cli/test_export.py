"""The command writes an export and says what came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.cli import main
from aerogel.core.folders import verify_folder
from tests.unit.slim.stand_ins import tiny_sam


def test_a_saved_model_becomes_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_sam().save_pretrained(tmp_path / "model")
    words = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--quantise", "--no-boxes"]
    assert main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert "q8 encoder: image_embeddings, largest" in shown.err
    assert result["folder"] == str(tmp_path / "out")
    assert set(result["files"]) == {
        f"onnx/{stem}{suffix}.onnx"
        for stem in ("vision_encoder", "prompt_encoder_mask_decoder")
        for suffix in ("", "_quantized")
    }
    manifest = verify_folder(tmp_path / "out", "onnx-segmenter")
    assert manifest.command == f"aerogel {' '.join([*words, '--json'])}"
    assert main(words) == 2
    assert (
        "--overwrite" in capsys.readouterr().err or verify_folder(tmp_path / "out").digest == manifest.digest
    )


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
