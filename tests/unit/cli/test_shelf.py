"""Recipes: those that ship are valid, and a name that is wrong finds its neighbour."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.shelf import find_recipe, list_recipes
from aerogel.condense.config import CondenseConfig
from aerogel.core.config import from_dict, load_config, to_dict
from aerogel.core.recipes import RecipeLoader
from aerogel.errors import ConfigError, UnknownNameError
from aerogel.slim.config import SlimConfig
from aerogel.zoo.cards import CARDS
from aerogel.zoo.named import NAMED
from aerogel.zoo.photos import SAMPLES, open_photos

KINDS = {"condense": CondenseConfig, "slim": SlimConfig}
KNOWN = {name: RecipeLoader(find_recipe(name).read_text()).get_data()["type"] for name in list_recipes()}
CONDENSING = [name for name, kind in KNOWN.items() if kind == "condense"]
SLIMMING = [name for name, kind in KNOWN.items() if kind == "slim"]


def test_every_shipped_recipe_is_for_a_verb() -> None:
    assert set(KNOWN.values()) == set(KINDS)
    for name, kind in KNOWN.items():
        config = load_config(KINDS[kind], find_recipe(name))
        assert from_dict(KINDS[kind], to_dict(config)) == config


@pytest.mark.parametrize("name", CONDENSING)
def test_a_shipped_recipe_of_condensing_names_its_data(name: str) -> None:
    config = load_config(CondenseConfig, find_recipe(name))
    assert config.dataset in NAMED
    assert name.startswith(config.dataset)
    assert "generator" in config.student.labels
    assert "stored-fp16" in config.student.labels, "the report weighs the generator against stored labels"


@pytest.mark.parametrize("name", SLIMMING)
def test_a_shipped_recipe_of_slimming_uses_what_ships(name: str) -> None:
    config = load_config(SlimConfig, find_recipe(name))
    assert CARDS.get(config.model).kind == "segmenter"
    assert config.images == SAMPLES
    aligned = len(open_photos(SAMPLES)) - config.held_out
    assert aligned == config.rotate.photos == config.score.photos == config.reconstruct.photos
    assert name == f"{config.model.removeprefix('aerogel/')}-r{100 * config.ratio:.0f}"


def test_the_recipe_of_another_verb_is_refused() -> None:
    with pytest.raises(ConfigError, match="slim"):
        load_config(CondenseConfig, find_recipe("sam-nano-r10"))
    with pytest.raises(ConfigError, match="condense"):
        load_config(SlimConfig, find_recipe("digits"))


def test_the_demo_and_both_settings_of_fashion_mnist_are_there() -> None:
    assert {"digits", "fashion-mnist-ipc10", "fashion-mnist-ipc50", "sam-nano-r10"} <= set(list_recipes())
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
