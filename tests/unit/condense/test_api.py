"""The one call: settings are gathered and checked before any work, results are saved whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import aerogel
from aerogel.condense.api import (
    RECIPE,
    RESULT,
    Condensed,
    cache_folder,
    condense,
    gather_config,
    open_sources,
)
from aerogel.condense.archive import encode_png
from aerogel.condense.condensed import load_condensed
from aerogel.condense.config import CondenseConfig
from aerogel.core.config import load_config, to_dict
from aerogel.errors import ConfigError, DataError, FolderExistsError
from aerogel.zoo import load_splits
from tests.unit.condense import tiny
from tests.unit.zoo.test_shards import write_tar


def gather(config: CondenseConfig | None = None, **settings: Any) -> CondenseConfig:
    return gather_config(config, "digits", ipc=None, backbone=None, settings=settings)


def test_the_call_is_public() -> None:
    assert aerogel.condense is not None
    assert aerogel.load_condensed is load_condensed


def test_a_result_holds_the_set_the_rows_and_their_figures(finished: Condensed) -> None:
    assert [row.labels for row in finished.rows] == ["generator", "hard"]
    figures = finished.to_dict()
    assert json.loads((finished.folder / RESULT).read_text()) == figures
    assert figures["images"] == 6
    assert figures["ipc"] == 2
    assert [entry["views"] for entry in figures["fidelity"]] == ["augmented", "cutmix", "condensed"]
    assert figures["archive_digest"] == finished.data.manifest.digest
    assert load_config(CondenseConfig, finished.folder / RECIPE) == finished.config
    views = finished.data.images.float() / 255.0
    assert finished.labels(views).shape == (6, 3)


def test_a_second_call_finds_everything_done(finished: Condensed, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    for name in ("pipeline.train_teacher", "pipeline.train_generator", "comparison.train_student"):
        monkeypatch.setattr(f"aerogel.condense.{name}", unexpected)
    parts = tiny.sources()
    again = condense(parts.train, test=parts.test, config=tiny.config(), out=finished.folder)
    assert again.to_dict() == finished.to_dict()


def test_save_copies_the_set_whole_and_overwrites_nothing_unasked(
    finished: Condensed, tmp_path: Path
) -> None:
    target = finished.save(tmp_path / "set")
    assert load_condensed(target).manifest.digest == finished.data.manifest.digest
    with pytest.raises(FolderExistsError):
        finished.save(target)
    finished.save(target, overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "x.txt").write_text("mine")
    with pytest.raises(FolderExistsError):
        finished.save(mine, overwrite=True)
    assert (mine / "x.txt").read_text() == "mine"


def test_settings_are_merged_into_a_config() -> None:
    start = tiny.config()
    found = gather_config(
        start, "digits", ipc=3, backbone="aerogel/x", settings={"teacher": {"width": 5}, "seed": 4}
    )
    expected = to_dict(start)
    expected |= {"dataset": "digits", "ipc": 3, "seed": 4}
    expected["teacher"]["width"] = 5
    expected["projector"]["backbone"] = "aerogel/x"
    assert to_dict(found) == expected
    assert gather().ipc == CondenseConfig().ipc
    assert gather_config(None, Path("x"), ipc=None, backbone=None, settings={}).dataset == "x"
    assert gather_config(None, tiny.draw(1), ipc=None, backbone=None, settings={}).dataset == "patches"


def test_all_mistakes_are_told_at_once_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        condense("digits", ipc=0, out=tmp_path / "run", teacher={"widht": 8}, projector={"rank": -1}, sed=3)
    for told in ("ipc", "widht", "width", "rank", "sed", "seed"):
        assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used_is_told_before_any_work(tmp_path: Path) -> None:
    parts = tiny.sources()
    with pytest.raises(ConfigError, match="a test set beside an ImageSet"):
        condense(parts.train, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="a dataset"):
        open_sources(CondenseConfig(), "", None)
    empty = tiny.rename(tiny.draw(2), (*tiny.NAMES, "star"))
    with pytest.raises(DataError, match="'star' has no images"):
        condense(empty, test=empty, out=tmp_path / "run")
    with pytest.raises(DataError):
        condense(tmp_path / "nowhere", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_folder_the_users_cache_keeps_the_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path))
    parts = tiny.sources()
    first = cache_folder(tiny.config(), parts)
    assert first.is_relative_to(tmp_path)
    assert first == cache_folder(tiny.config(), tiny.sources())
    assert first != cache_folder(tiny.config(ipc=3), parts)
    assert first != cache_folder(tiny.config(), tiny.sources(count=25))
    monkeypatch.delenv("AEROGEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(tiny.config(), parts).is_relative_to(tmp_path / "home" / ".cache" / "aerogel")


def test_the_comparison_may_be_left_out(tmp_path: Path) -> None:
    parts = tiny.sources()
    found = condense(parts.train, test=parts.test, config=tiny.config(), out=tmp_path, compare=False)
    assert found.rows == ()
    assert not (tmp_path / "students").exists()


def test_a_set_on_disk_is_condensed_as_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path / "cache"))
    data = tiny.sources()
    for name, part in (("train", data.train), ("test", data.test)):
        files: dict[str, bytes] = {}
        for index, image in enumerate(part.images):
            label = part.class_names[int(part.labels[index])].encode()
            files |= {f"{index:03d}.png": encode_png(image), f"{index:03d}.cls": label}
        write_tar(tmp_path / f"shards/patches-{name}.tar", files)
    digests = []
    for limit in (0, 2**20):
        options = {"size": 8, "channels": 1, "memory_bytes": limit}
        train, test = load_splits(tmp_path / "shards", **options)
        assert torch.is_tensor(train.images) == bool(limit)
        out = tmp_path / str(limit)
        made = condense(train, test=test, config=tiny.config(), out=out, compare=False)
        digests.append(made.data.manifest.digest)
    assert digests[0] == digests[1]
