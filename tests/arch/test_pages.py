"""Pages stay true: their commands parse with the real command line, their Python names what exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from aerogel.cli import app
from tests.arch.pages import Block, blocks, blocks_of, command_lines, pages, words
from tests.arch.rules import dotted
from tests.arch.tree import ROOT, name_of

# Programs that a reader has or is told to get. Another one is a decision, made here.
KNOWN_PROGRAMS = {
    "accelerate",
    "apt-get",
    "cd",
    "export",
    "git",
    "hf",
    "pip",
    "python",
    "python3",
    "ls",
    "source",
    "torchrun",
}


def place(block: Block) -> str:
    return f"{name_of(block.path)}:{block.line}"


COMMANDS = [
    pytest.param(part, id=f"{place(block)} {' '.join(part)}")
    for block in blocks()
    for line in command_lines(block)
    for part in words(line)
]
PYTHON = [
    pytest.param(block, id=place(block)) for block in blocks() if block.language in {"python", "py", "pycon"}
]


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.M))


def fault_of(part: list[str]) -> str | None:
    """Say why a reader could not run a command as it stands, or None."""
    program, arguments = part[0].rpartition("/")[2], part[1:]
    if program == "aerogel":
        try:
            app.parse_args(arguments, exit_on_error=False, print_error=False)
        except Exception as error:  # noqa: BLE001 - any refusal of the parser is the finding
            return f"{type(error).__name__}: {error}"
        return None
    if program == "make":
        named = [word for word in arguments if "=" not in word and not word.startswith("-")]
        unknown = sorted(set(named) - targets())
        return f"no such target: {unknown}" if unknown else None
    if program not in KNOWN_PROGRAMS:
        return f"unknown program {program!r}"
    if program.startswith("python") and "-c" in arguments:
        compile(arguments[arguments.index("-c") + 1], "page", "exec")
    for word in arguments:
        if word.endswith(".py") and not (ROOT / word.partition("::")[0]).is_file():
            return f"no such file: {word}"
    return None


def missing_names(tree: ast.Module) -> list[str]:
    """List the names below ``aerogel`` that a piece of Python uses and that do not exist."""
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).split(".")[0] == "aerogel":
            owner, _, name = dotted(node).partition(".")
            missing += [f"{owner}.{name}"] if not exists(owner, name.split(".")[0]) else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aerogel":
            missing += [f"{node.module}.{a.name}" for a in node.names if not exists(str(node.module), a.name)]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "aerogel":
                    importlib.import_module(alias.name)
    return missing


def exists(module: str, name: str) -> bool:
    """Tell whether a module has a public name or a submodule of that name."""
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(f"{module}.{name}")
        )
    except ImportError:
        return False


@pytest.mark.parametrize("part", COMMANDS)
def test_command_can_be_run(part: list[str]) -> None:
    assert fault_of(part) is None


@pytest.mark.parametrize("block", PYTHON)
def test_python_compiles_and_its_names_exist(block: Block) -> None:
    text = block.text
    if block.language == "pycon" or text.lstrip().startswith(">>>"):
        text = "\n".join(line[4:] for line in text.splitlines() if line.startswith((">>> ", "... ")))
    assert missing_names(ast.parse(text, filename=place(block))) == []


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^(`{3,}).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


def test_the_readme_shows_the_two_commands() -> None:
    shown = [line for block in blocks() if block.path == ROOT / "README.md" for line in command_lines(block)]
    assert {"make demo", "make test"} <= set(shown)


def test_broken_commands_are_found() -> None:
    assert fault_of(["aerogel", "condnse"])
    assert fault_of(["aerogel", "demo", "--no-such-flag"])
    assert fault_of(["make", "tea"])
    assert fault_of(["frobnicate"])
    assert fault_of(["python", "examples/no_such_example.py"])
    assert fault_of(["make", "PYTHON=python3.12", "test"]) is None


def test_missing_names_are_found() -> None:
    code = "import aerogel\naerogel.no_such_name()\nfrom aerogel.errors import AerogelError, NoSuchError\n"
    assert set(missing_names(ast.parse(code))) == {"aerogel.no_such_name", "aerogel.errors.NoSuchError"}


def test_commands_are_taken_from_blocks() -> None:
    told = "```console\n$ A=1 aerogel env | tee \\\n  x\noutput\n```\n"
    written = "\n```bash\n# a note\nmake demo && make test\n```\n"
    console, bash = blocks_of(ROOT / "README.md", told + written)
    assert [words(line) for line in command_lines(console)] == [[["aerogel", "env"], ["tee", "x"]]]
    assert [words(line) for line in command_lines(bash)] == [[["make", "demo"], ["make", "test"]]]
