"""The verbs are there, and a mistake leads to the nearest help."""

from __future__ import annotations

import pytest

from aerogel.cli.program import build_app, build_condense, build_sample, main, name_help


def test_the_verbs() -> None:
    verbs = {name for name in build_app().resolved_commands() if not name.startswith("-")}
    assert verbs == {"demo", "condense", "sample", "report", "env", "doctor"}
    stages = [name for name in build_condense().resolved_commands() if not name.startswith("-")]
    assert stages == ["teacher", "select", "generator", "pack", "student", "eval", "verify", "size"]
    trials = [name for name in build_sample().resolved_commands() if not name.startswith("-")]
    assert trials == ["plan", "simulate", "verify", "bench"]


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
