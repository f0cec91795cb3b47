"""The program as a whole: help, version, exit codes, an interruption, a closed pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import aerogel
from aerogel.cli import app, main
from tests.cli.runs import tiny_settings

VERBS = [
    ["demo"],
    ["condense"],
    *(
        ["condense", n]
        for n in (
            *("teacher", "select", "generator", "pack", "student", "eval", "continual", "verify"),
            *("size", "push"),
        )
    ),
    ["sample"],
    *(["sample", n] for n in ("plan", "simulate", "verify", "bench")),
    ["slim"],
    *(["slim", n] for n in ("plan", "eval", "compare")),
    ["export"],
    ["report"],
    ["env"],
    ["doctor"],
]
START = "import sys; from aerogel.cli import main; sys.exit(main())"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_examples_that_parse(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--help"]) == 0
    text = capsys.readouterr().out
    _, _, examples = text.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.startswith("  aerogel ")]
    assert lines and all(line.startswith(" ".join(["aerogel", *verb])) for line in lines)
    for line in lines:
        app.parse_args(line.partition("&&")[0].split()[1:], exit_on_error=False, print_error=False)
    assert max(map(len, text.splitlines())) <= 80


def test_every_verb_is_tested() -> None:
    named = {name for name in app.resolved_commands() if not name.startswith("-")}
    groups = ("condense", "sample", "slim")
    inner = {(group, name) for group in groups for name in app[group].resolved_commands()}
    shown = {each for each in inner if not each[1].startswith("-")}
    assert {tuple(verb) for verb in VERBS} == {(name,) for name in named} | shown


def test_help_without_words_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Exit codes" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == aerogel.__version__


def test_env_is_ready_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["aerogel"] == aerogel.__version__
    assert f"- aerogel: {aerogel.__version__}" in said.err


def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(aerogel.AerogelError):
        main(["condense", "--debug"])


def test_an_interrupted_run_says_so_and_continues(tmp_path: Path) -> None:
    words = ["condense", "digits", "--ipc", "1", "--out", "cut", "--no-compare"]
    more = tiny_settings("teacher.fit.epochs=2000")
    environment = {**os.environ, "AEROGEL_PROGRESS": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words, *more], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 300
    while not Path("cut/teacher.partial").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 130
    assert "the same command continues" in said and "Traceback" not in said
    assert not Path("cut/teacher").exists()


def test_a_closed_pipe_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, "env"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (0, b"")
