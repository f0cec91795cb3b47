"""Progress is seen by people, and by nobody else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from aerogel.core.progress import announce, is_first_process, track

SCRIPT = """
    from aerogel.core.progress import announce, track
    for epoch in track(range(3), total=3, label="epochs [raw]", unit="epoch"):
        for step in track(iter("ab"), total=2, label="steps"):
            if epoch == 2 and step == "b":
                announce("chose [it]")
    announce("done")
"""


def run_on_terminal(**variables: str) -> str:
    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "AEROGEL_PROGRESS")}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    with subprocess.Popen(
        command, stderr=follower, env=env | {"TERM": "xterm", "COLUMNS": "120"} | variables
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(leader)
    assert process.returncode == 0
    return shown.decode()


def test_a_terminal_sees_bars_counts_and_messages() -> None:
    shown = run_on_terminal()
    for part in ("epochs [raw]", "steps", "3/3", "epoch", "left", "chose [it]"):
        assert part in shown
    assert shown.endswith("done\r\n")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AEROGEL_PROGRESS": "0"}, "chose [it]\r\ndone\r\n"),
        ({"RANK": "0", "LOCAL_RANK": "0", "AEROGEL_PROGRESS": "0"}, "chose [it]\r\ndone\r\n"),
        ({"RANK": "1"}, ""),
        ({"LOCAL_RANK": "1"}, ""),
    ],
)
def test_it_is_silent_where_it_should_be(variables: dict[str, str], expected: str) -> None:
    assert run_on_terminal(**variables) == expected


def test_off_a_terminal_only_announcements_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), total=None, label="steps")) == [0, 1, 2]
    announce("chose it")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "chose it\n")


@pytest.mark.parametrize(("rank", "first"), [("", True), ("0", True), ("1", False)])
def test_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, rank: str, first: bool) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("RANK", rank)
    assert is_first_process() == first


class Terminal(io.StringIO):
    """A screen to write to."""

    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("RANK", "LOCAL_RANK", "AEROGEL_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_loop_that_is_left_early_ends_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)

    def items() -> Iterator[int]:
        yield from range(5)

    for number in track(items(), total=5, label="first"):
        if number == 2:
            break
    announce("plain")
    assert screen.getvalue().endswith("plain\n")
    assert list(track([7], total=1, label="second")) == [7]


def test_an_error_in_the_iterable_ends_the_bar_and_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(track(broken(), total=2, label="first"))
    announce("plain")
    assert screen.getvalue().endswith("plain\n")


def test_results_on_stdout_stay_there_while_a_bar_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = use_terminal(monkeypatch)
    for _ in track([1], total=1, label="steps"):
        print('{"json": 1}')
    assert capsys.readouterr().out == '{"json": 1}\n'
    assert "steps" in screen.getvalue()
