"""The fenced blocks of the project's pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.arch.tree import project_files

FENCE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
SHELLS = {"bash", "console", "sh", "shell"}


@dataclass(frozen=True)
class Block:
    """One fenced block: its file, first line, language and text."""

    path: Path
    line: int
    language: str
    text: str


def blocks_of(path: Path, text: str) -> list[Block]:
    """List the fenced blocks of a page."""
    return [
        Block(path, text.count("\n", 0, match.start()) + 2, match["language"], match["body"])
        for match in FENCE.finditer(text)
    ]


def pages() -> list[Path]:
    """List the project's Markdown pages."""
    return [path for path in project_files() if path.suffix == ".md"]


def blocks() -> list[Block]:
    """List every fenced block of every page."""
    return [block for path in pages() for block in blocks_of(path, path.read_text(encoding="utf-8"))]


def command_lines(block: Block) -> list[str]:
    """List a block's commands: the lines after ``$``, or without any all lines that are no comment."""
    if block.language not in SHELLS:
        return []
    lines = re.sub(r"\\\n\s*(?:>\s*)?", " ", block.text).splitlines()
    if block.language == "console" or any(line.startswith("$ ") for line in lines):
        return [line[2:].strip() for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def words(command: str) -> list[list[str]]:
    """Split a command line into its simple commands, each a list of words, without comments and settings."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    for word in lexer:
        if word and not set(word) - set("|&;"):
            simple.append([])
        else:
            simple[-1].append(word)
    return [_without_settings(part) for part in simple if part]


def _without_settings(part: list[str]) -> list[str]:
    while part and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", part[0]):
        part = part[1:]
    for redirection in (">", ">>", "<"):
        if redirection in part:
            part = part[: part.index(redirection)]
    return part
