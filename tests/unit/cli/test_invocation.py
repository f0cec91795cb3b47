"""The command line as manifests record it."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from aerogel.cli.invocation import read_command, record_words


def test_there_is_none_outside() -> None:
    assert read_command() is None


@given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])), min_size=1))
def test_a_shell_reads_back_the_same_words(words: list[str]) -> None:
    with record_words(words):
        assert shlex.split(read_command() or "") == ["aerogel", *words]
    assert read_command() is None
