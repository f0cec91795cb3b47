"""What is sent is sound, and a wrong path is the user's mistake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aerogel.cli.push import push_command
from aerogel.errors import DataError


def test_the_address_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []

    def push(repo_id: str, **options: Any) -> str:
        sent.append((repo_id, options))
        return "https://hub.test/datasets/anna/tiny"

    data = SimpleNamespace(push_to_hub=push, manifest=SimpleNamespace(digest="abc"))
    monkeypatch.setattr("aerogel.condense.condensed.load_condensed", lambda path: data)
    assert push_command(tmp_path, "anna/tiny", revision="next", json=True) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["digest"] == "abc"
    assert "https://hub.test/datasets/anna/tiny" in said.err
    assert sent == [("anna/tiny", {"private": False, "revision": "next"})]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        push_command(tmp_path / "nowhere", "anna/tiny")
