"""The demo is the shipped recipe, in the folder that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aerogel.cli import demo
from aerogel.cli.demo import demo_command


def test_the_recipe_runs_on_one_thread_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def run(config: Any, folder: Path, screen: Any, *, overwrite: bool) -> int:
        import torch

        seen.update(config=config, folder=folder, overwrite=overwrite, threads=torch.get_num_threads())
        return 0

    monkeypatch.setattr(demo, "run_condense", run)
    assert demo_command(out=tmp_path / "x") == 0
    assert (seen["config"].dataset, seen["config"].device) == ("digits", "cpu")
    assert (seen["folder"], seen["overwrite"], seen["threads"]) == (tmp_path / "x", False, 1)
