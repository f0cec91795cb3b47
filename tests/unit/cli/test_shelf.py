"""Recipes: those that ship are valid, and a name that is wrong finds its neighbour."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.shelf import find_recipe, list_recipes
from aerogel.condense.config import CondenseConfig
from aerogel.core.config import from_dict, load_config, to_dict
from aerogel.errors import UnknownNameError
from aerogel.zoo.named import NAMED


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_is_valid_and_names_its_data(name: str) -> None:
    config = load_config(CondenseConfig, find_recipe(name))
    assert config.dataset in NAMED
    assert name.startswith(config.dataset)
    assert "generator" in config.student.labels
    assert "stored-fp16" in config.student.labels, "the report weighs the generator against stored labels"
    assert from_dict(CondenseConfig, to_dict(config)) == config


def test_the_demo_and_both_settings_of_fashion_mnist_are_there() -> None:
    assert {"digits", "fashion-mnist-ipc10", "fashion-mnist-ipc50"} <= set(list_recipes())
    for ipc in (10, 50):
        config = load_config(CondenseConfig, find_recipe(f"fashion-mnist-ipc{ipc}"))
        assert (config.ipc, config.student.width, config.student.depth) == (ipc, 128, 3)
        assert len(config.student.seeds) >= 3


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("ipc: 1", encoding="utf-8")
    assert find_recipe("digits") == Path("digits")


def test_a_wrong_name_finds_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fashion-mnist-ipc10'"):
        find_recipe("fashion-mnist-icp10")
    with pytest.raises(UnknownNameError, match="use one of digits, "):
        find_recipe("zzz")
