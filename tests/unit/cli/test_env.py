"""A bug report's first lines."""

from __future__ import annotations

import pytest

import aerogel
from aerogel.cli.env import env_command


def test_each_fact_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert env_command() == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"- aerogel: {aerogel.__version__}" in lines
    assert all(line.startswith("- ") and ": " in line for line in lines)
