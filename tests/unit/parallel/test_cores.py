"""Processes that fill the machine get a core each; a block gives the thread back its freedom."""

from __future__ import annotations

import os

import pytest

from aerogel.parallel.cores import keep_to, kept_to, share_cores


def set_cores(monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> list[set[int]]:
    held = [cores]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: held[-1], raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, wanted: held.append(wanted), raising=False)
    return held


def test_a_core_each_where_all_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, {5, 2, 7})
    assert share_cores(3, 1) == (2, 5, 7)


@pytest.mark.parametrize(("processes", "threads"), [(2, 1), (4, 1), (3, 2)])
def test_freedom_elsewhere(monkeypatch: pytest.MonkeyPatch, processes: int, threads: int) -> None:
    set_cores(monkeypatch, {5, 2, 7})
    assert share_cores(processes, threads) == ()


def test_systems_that_know_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert share_cores(1, 1) == ()
    with kept_to(None):
        pass


def test_a_block_ends_as_it_began_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    held = set_cores(monkeypatch, {0, 1})
    with pytest.raises(RuntimeError), kept_to(1):
        raise RuntimeError
    keep_to(0)
    assert held == [{0, 1}, {1}, {0, 1}, {0}]
