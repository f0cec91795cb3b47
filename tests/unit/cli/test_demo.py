"""The demo is the shipped recipes and the shipped models, in the folder that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aerogel.cli import demo
from aerogel.cli.demo import choose_request, demo_command, show_sampling
from aerogel.cli.screen import Screen
from aerogel.errors import FolderExistsError


def test_the_recipes_run_on_one_thread_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def run(config: Any, folder: Path, screen: Any, *, overwrite: bool) -> dict[str, Any]:
        import torch

        seen.update(config=config, folder=folder, overwrite=overwrite, threads=torch.get_num_threads())
        return {}

    def show(config: Any, folder: Path, screen: Any, *, overwrite: bool) -> None:
        parts.append(folder)
        seen.update(slimming=config)

    parts: list[Path] = []
    monkeypatch.setattr(demo, "show_condensing", run)
    monkeypatch.setattr(demo, "show_slimming", show)
    monkeypatch.setattr(demo, "show_sampling", lambda folder, screen, *, overwrite: parts.append(folder))
    assert demo_command(out=tmp_path / "x") == 0
    assert (seen["config"].dataset, seen["config"].device) == ("digits", "cpu")
    assert (seen["folder"], seen["overwrite"], seen["threads"]) == (tmp_path / "x", False, 1)
    assert (seen["slimming"].model, seen["slimming"].device) == ("aerogel/sam-nano", "cpu")
    assert parts == [tmp_path / "x" / "sample", tmp_path / "x" / "slim"]


def test_files_of_the_users_are_in_the_way_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "show_sampling", lambda *_, **__: pytest.fail("it began"))
    (tmp_path / "slim").mkdir()
    (tmp_path / "slim" / "report.html").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match=r"report\.html"):
        demo_command(out=tmp_path)


def test_a_picture_of_each_class_is_sampled() -> None:
    assert choose_request().classes == tuple("0123456789")


def test_what_is_sampled_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    worked = []

    def run_trial(work: Path, request: Any, config: Any) -> dict[str, Any]:
        worked.append((request.steps, config.components))
        (work / "report.html").write_text("a report")
        return {"exact": True, "paid": [["devices", "2", ""]], "saved": [["time", "1.9", "note"]], "lost": []}

    monkeypatch.setattr(demo, "run_trial", run_trial)
    for _ in range(2):
        show_sampling(tmp_path / "sample", Screen(), overwrite=False)
    assert worked == [(50, 2)]
    assert (tmp_path / "sample" / "report.html").read_text() == "a report"
    shown = capsys.readouterr().out
    assert shown.count("report.html") == 2 and "1.9" in shown
