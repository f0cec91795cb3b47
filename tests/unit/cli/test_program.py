"""The verbs are there, and a mistake leads to the nearest help."""

from __future__ import annotations

import pytest
from cyclopts import App

from aerogel.cli.program import build_app, main, name_help


def test_the_verbs() -> None:
    program = build_app()
    assert set(list_verbs(program)) == {
        "demo",
        "slim",
        "sample",
        "condense",
        "export",
        "report",
        "env",
        "doctor",
    }
    below = {name: list_verbs(program[name]) for name in ("condense", "sample", "slim")}
    assert below == {
        "condense": [
            *("teacher", "select", "generator", "pack"),
            *("student", "eval", "continual", "verify", "size", "push"),
        ],
        "sample": ["plan", "simulate", "verify", "bench"],
        "slim": ["plan", "eval", "compare"],
    }


def list_verbs(program: App) -> list[str]:
    return [name for name in program.resolved_commands() if not name.startswith("-")]


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in build_app().resolved_commands()
    assert "aerogel" in build_app().generate_completion(shell="bash")


@pytest.mark.parametrize(
    ("words", "help_command"),
    [
        (["condnse"], "aerogel --help"),
        (["condense", "digits", "--x"], "aerogel condense --help"),
        (["condense", "eval"], "aerogel condense eval --help"),
    ],
)
def test_a_mistake_names_the_nearest_help(
    words: list[str], help_command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name_help(words) == help_command
    assert main(words) == 2
    assert capsys.readouterr().err.endswith(f"See: {help_command}\n")
