"""Flags, recipes and --set become one config, later ones ahead, mistakes all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aerogel.cli.settings import Settings, assign, assign_all, choose_folder, gather_config
from aerogel.condense.config import CondenseConfig
from aerogel.errors import ConfigError, FolderExistsError


def test_flags_go_before_set_and_set_before_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("dataset: digits\nipc: 3\nseed: 5\nteacher: {width: 16}\n", encoding="utf-8")
    settings = Settings(recipe=str(recipe), ipc=7, rank=2, sets=("ipc=4", "seed=6", "student.fit.lr=1e-3"))
    config = gather_config("elsewhere", settings)
    assert (config.dataset, config.ipc, config.seed) == ("elsewhere", 7, 6)
    assert (config.teacher.width, config.projector.rank, config.student.fit.lr) == (16, 2, 1e-3)


def test_without_flags_the_defaults_stand() -> None:
    assert gather_config("digits", Settings()) == CondenseConfig(dataset="digits")
    flags = Settings(size=16, channels=3, device="cpu", skip_bad=True, backbone="b", teacher="t")
    config = gather_config("digits", flags)
    assert (config.size, config.channels, config.device, config.skip_bad) == (16, 3, "cpu", True)
    assert (config.projector.backbone, config.teacher.path) == ("b", "t")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-3", {"a": {"b": 0.001}}),
        ("a=[x, 2]", {"a": ["x", 2]}),
        ("a=b=c", {"a": "b=c"}),
        ("a=null", {"a": None}),
        ("a=", {"a": None}),
    ],
)
def test_values_are_read_as_recipes_write_them(text: str, value: dict[str, Any]) -> None:
    merged: dict[str, Any] = {}
    assign_all(merged, [text])
    assert merged == value


def test_malformed_ones_are_listed_together() -> None:
    with pytest.raises(ConfigError) as caught:
        assign_all({"ipc": 1}, ["nothing", "=3", "a=[1", "ipc.x=2", "b=1"])
    assert len(str(caught.value).splitlines()) == 4
    assert "a single value at ipc" in str(caught.value)


def test_assign_keeps_neighbours() -> None:
    merged: dict[str, Any] = {"fit": {"lr": 1}}
    assign(merged, "fit.epochs", 2)
    assert merged == {"fit": {"lr": 1, "epochs": 2}}


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("photos/train/", "condensed-train-ipc10"),
        ("owner/name:config", "condensed-name-config-ipc10"),
        (".", "condensed-here-ipc10"),
        ("/", "condensed-set-ipc10"),
    ],
)
def test_the_folder_is_named_after_the_data(
    dataset: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert choose_folder(CondenseConfig(dataset=dataset), None) == Path(name)


def test_a_folder_with_foreign_files_is_refused_and_one_of_a_run_is_not(tmp_path: Path) -> None:
    config = CondenseConfig(dataset="digits")
    assert choose_folder(config, tmp_path) == tmp_path
    (tmp_path / "notes.txt").touch()
    assert choose_folder(config, tmp_path) == tmp_path, "a run writes nothing of that name"
    (tmp_path / "report.html").touch()
    with pytest.raises(FolderExistsError, match=r"no run wrote: report\.html"):
        choose_folder(config, tmp_path)
    (tmp_path / "teacher.partial").mkdir()
    assert choose_folder(config, tmp_path) == tmp_path
    with pytest.raises(FolderExistsError, match="a file"):
        choose_folder(config, tmp_path / "notes.txt")
