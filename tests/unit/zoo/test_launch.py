"""Without a launcher a process is alone."""

from __future__ import annotations

import sys

import pytest

from aerogel.core.crew import Crew
from aerogel.errors import MissingDependencyError
from aerogel.zoo.launch import join_crew


def test_one_process_is_a_crew() -> None:
    assert join_crew("cpu") == Crew(1, 0)


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match=r"aerogel\[condense\]"):
        join_crew("cpu")
