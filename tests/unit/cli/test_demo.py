"""The demo is the shipped recipe and the shipped diffusion model, in the folder that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aerogel.cli import demo
from aerogel.cli.demo import choose_request, demo_command, show_sampling
from aerogel.cli.screen import Screen


def test_the_recipe_runs_on_one_thread_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def run(config: Any, folder: Path, screen: Any, *, overwrite: bool) -> int:
        import torch

        seen.update(config=config, folder=folder, overwrite=overwrite, threads=torch.get_num_threads())
        return 0

    sampled = []
    monkeypatch.setattr(demo, "run_condense", run)
    monkeypatch.setattr(demo, "show_sampling", lambda folder, screen, *, overwrite: sampled.append(folder))
    assert demo_command(out=tmp_path / "x") == 0
    assert (seen["config"].dataset, seen["config"].device) == ("digits", "cpu")
    assert (seen["folder"], seen["overwrite"], seen["threads"]) == (tmp_path / "x", False, 1)
    assert sampled == [tmp_path / "x" / "sample"]


def test_a_picture_of_each_class_is_sampled() -> None:
    assert choose_request().classes == tuple("0123456789")


def test_what_is_sampled_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    worked = []

    def run_trial(work: Path, request: Any, config: Any) -> dict[str, Any]:
        worked.append((request.steps, config.components))
        (work / "report.html").write_text("a report")
        return {"paid": [["devices", "2", ""]], "saved": [["time", "1.9", "note"]], "lost": []}

    monkeypatch.setattr(demo, "run_trial", run_trial)
    for _ in range(2):
        show_sampling(tmp_path / "sample", Screen(), overwrite=False)
    assert worked == [(50, 2)]
    assert (tmp_path / "sample" / "report.html").read_text() == "a report"
    shown = capsys.readouterr().out
    assert shown.count("report.html") == 2 and "1.9" in shown
