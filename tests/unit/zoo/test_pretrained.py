"""Models are loaded whole, from safetensors, without a bar on the screen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aerogel.errors import DataError, MissingDependencyError
from aerogel.zoo.pretrained import load_part, load_pretrained, quiet
from tests.unit.condense import tiny

LOADER = "AutoModelForImageClassification"


def test_a_model_is_loaded_for_inference_in_float32(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_pretrained(LOADER, str(tiny.write_classifier(tmp_path)))
    capfd.readouterr()
    load_pretrained(LOADER, str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    path = tiny.write_classifier(tmp_path) / "model.safetensors"
    kept = {key: value for key, value in load_file(path).items() if not key.startswith("classifier")}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(DataError, match=r"without classifier\.bias, classifier\.weight \(2 in all\)"):
        load_pretrained(LOADER, str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tiny.write_classifier(tmp_path) / name
    path.write_bytes(b"{")
    with pytest.raises(DataError, match=r"could not be loaded|JSON text in"):
        load_pretrained(LOADER, str(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match="could not be loaded"):
        load_pretrained(LOADER, str(tmp_path))


def test_a_missing_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be loaded"):
        load_part("AutoConfig", str(tmp_path))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[all\]"):
        load_part("AutoConfig", "x")


def test_a_package_that_a_tokenizer_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def lacking(*_: object, **__: object) -> None:
        raise ImportError("requires the\n  sentencepiece library")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lacking)
    with pytest.raises(MissingDependencyError, match="got requires the sentencepiece library"):
        load_part("AutoTokenizer", "x")


def test_options_reach_the_models_constructor(tmp_path: Path) -> None:
    folder = str(tiny.write_classifier(tmp_path))
    assert load_pretrained("ViTModel", folder, add_pooling_layer=False).pooler is None
    with pytest.raises(DataError, match=r"without pooler"):
        load_pretrained("ViTModel", folder)


@pytest.mark.parametrize("shown", [True, False])
def test_the_callers_choice_of_bars_is_given_back(shown: bool) -> None:
    from transformers.utils import logging

    before, told = logging.is_progress_bar_enabled(), logging.get_verbosity()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    with quiet():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() is shown
    assert logging.get_verbosity() == told
    (logging.enable_progress_bar if before else logging.disable_progress_bar)()
