"""The script that makes the shipped segmenter, on a tiny teacher and a few photos."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import SamModel

from aerogel.core.config import load_config
from aerogel.core.files import sha256_file
from aerogel.errors import DataError, FolderExistsError
from aerogel.slim import SlimConfig
from tests.unit.slim.runs import config, teacher, write_photos

RECIPES = Path(__file__).parents[3] / "recipes" / "zoo"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    found = import_module("make_sam_nano")
    monkeypatch.setattr(found, "read_settings", lambda: config(dtype="float16"))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a saved teacher and photos in parquet."""
    teacher().save_pretrained(tmp_path / "small")
    pictures = [path.read_bytes() for path in sorted(write_photos(tmp_path / "png").iterdir())]
    (tmp_path / "photos").mkdir()
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    table = pa.table({"image": rows, "label": list(range(len(rows)))})
    pq.write_table(table, tmp_path / "photos" / "imagenet-samples.parquet")
    return tmp_path


def call(recipe: Any, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    words = {"--small": "small", "--data": "", "--work": "work", "--out": "nano"}
    arguments = [word for flag, name in words.items() for word in (flag, str(place / name))]
    monkeypatch.setattr(sys, "argv", [recipe.__file__, *arguments])
    recipe.main()


def test_the_settings_leave_what_ships() -> None:
    settings = load_config(SlimConfig, RECIPES / "sam_nano.yaml")
    assert 384 * (1 - settings.ratio) == 120 and settings.layout == "stock"
    assert (settings.dtype, settings.align.epochs, settings.align.lr) == ("float16", 1, SlimConfig().align.lr)


def test_the_finished_folder_is_what_transformers_opens(
    recipe: Any, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(recipe, monkeypatch, place)
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    out = place / "nano"
    files = {path.name: path.stat().st_size for path in out.iterdir()}
    assert set(files) == {"config.json", "model.safetensors"}
    assert card["size_bytes"] == sum(files.values())
    assert card["sha256"] == sha256_file(out / "model.safetensors")
    model = SamModel.from_pretrained(out)
    assert {each.dtype for each in model.parameters()} == {torch.float16}
    assert card["parameters"] == sum(each.numel() for each in model.parameters())
    assert str(place) not in (out / "config.json").read_text(encoding="utf-8")
    assert (place / "work" / "report.html").is_file()


def test_what_is_too_large_or_in_the_way_is_refused(
    recipe: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="at most 1,000 bytes"):
        call(recipe, monkeypatch, place)
    assert not (place / "nano").exists()
    monkeypatch.setattr(recipe, "slim", lambda *_, **__: pytest.fail("it began"))
    (place / "nano").mkdir()
    (place / "nano" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError):
        call(recipe, monkeypatch, place)
