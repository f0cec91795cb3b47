"""Flags, recipes and --set make one config, the later ones ahead; the folder has a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.slimming import SlimSettings, choose_slim_folder, gather_slim_config
from aerogel.core.config import save_config
from aerogel.errors import ConfigError, FolderExistsError, UnknownNameError
from aerogel.slim.config import AlignConfig, SlimConfig


def test_flags_are_ahead_of_set_and_set_of_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    save_config(SlimConfig(model="a/b", images="x", ratio=0.25, align=AlignConfig(epochs=7, lr=0.5)), recipe)
    settings = SlimSettings(
        recipe=str(recipe),
        images="photos",
        epochs=3,
        mask_epochs=4,
        held_out=4,
        criterion="magnitude",
        sets=("align.epochs=5", "align.lr=0.125", "ratio=0.75", "score.draws=2"),
    )
    found = gather_slim_config(None, settings)
    assert found.model == "a/b" and found.images == "photos"
    assert (found.ratio, found.align.epochs, found.align.lr) == (0.75, 3, 0.125)
    assert found.masks.epochs == 4
    assert (found.score.criterion, found.score.draws, found.held_out) == ("magnitude", 2, 4)
    assert gather_slim_config("c/d", settings).model == "c/d"


def test_every_flag_arrives() -> None:
    settings = SlimSettings(
        images="photos",
        limit=50,
        ratio=0.25,
        mlp_ratio=0.75,
        heads=3,
        layout="flex",
        seed=9,
        device="cpu",
        dtype="float16",
    )
    found = gather_slim_config("m/m", settings)
    assert (found.limit, found.ratio, found.mlp_ratio, found.heads) == (50, 0.25, 0.75, 3)
    assert (found.layout, found.seed, found.device, found.dtype) == ("flex", 9, "cpu", "float16")


def test_a_recipe_that_ships_names_model_and_photos() -> None:
    found = gather_slim_config(None, SlimSettings(recipe="sam-nano-r10", device="cpu"))
    assert (found.model, found.images, found.ratio) == ("aerogel/sam-nano", "aerogel/samples", 0.1)
    assert found.device == "cpu"
    mine = gather_slim_config("m/m", SlimSettings(recipe="sam-nano-r10", images="photos"))
    assert (mine.model, mine.images, mine.ratio) == ("m/m", "photos", 0.1)


def test_without_flags_the_defaults_hold() -> None:
    found = gather_slim_config("m/m", SlimSettings(images="photos"))
    assert found == SlimConfig(model="m/m", images="photos")


@pytest.mark.parametrize(
    ("model", "images", "told"),
    [
        (None, "photos", "the model to slim; got none.*aerogel slim facebook/sam-vit-base"),
        ("m/m", None, "photos to slim it with; got none.*--images FOLDER"),
    ],
)
def test_what_is_not_named_is_asked_for(model: str | None, images: str | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        gather_slim_config(model, SlimSettings(images=images))


def test_mistakes_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"(?s)ratio.*epohcs.*epochs"):
        gather_slim_config("m/m", SlimSettings(images="photos", ratio=1.5, sets=("align.epohcs=3",)))
    with pytest.raises(ConfigError, match="did you mean 'channel-fisher'"):
        gather_slim_config("m/m", SlimSettings(images="photos", criterion="chanel-fisher"))
    with pytest.raises(UnknownNameError, match="recipe"):
        gather_slim_config("m/m", SlimSettings(images="photos", recipe="no-such-recipe"))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("facebook/sam-vit-base", "slim-sam-vit-base-0.77"),
        ("runs/my sam/", "slim-my-sam-0.77"),
        ("aerogel/sam-nano", "slim-sam-nano-0.77"),
    ],
)
def test_the_folder_is_named_after_the_model_and_the_ratio(
    model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_slim_folder(SlimConfig(model=model, ratio=0.77), None) == Path(name)
    assert choose_slim_folder(SlimConfig(model=model), Path("there")) == Path("there")


def test_the_folder_one_stands_in_lends_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert choose_slim_folder(SlimConfig(model="."), None) == Path("slim-mine-0.5")


def test_files_of_the_users_are_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match=r"report\.html.*--out"):
        choose_slim_folder(SlimConfig(model="m/m"), tmp_path)
