"""Images before they are decoded, and the problems of a source, told all at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from aerogel.errors import DataError, compose

SHOWN = 20


@dataclass
class Problems:
    """Collect what is wrong with a source, to be reported all at once."""

    where: str
    found: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note one problem."""
        self.found.append(problem)

    def refuse(self, remedy: str) -> None:
        """Raise DataError listing the first 20 problems and their number; do nothing without any.

        Raises:
            DataError: when anything was noted.
        """
        if self.found:
            expected = f"readable, labelled images for every class in {self.where}"
            raise DataError(compose(expected, list_problems(self.found), remedy))


@dataclass(frozen=True)
class Record:
    """One image before decoding: provenance, class (an index or a name) and file or file bytes."""

    identifier: str
    label: int | str | None
    content: bytes | Path | None


def describe_label(label: int | str | None, count: int) -> str:
    """Say what is wrong with a label that is in no list of ``count`` classes."""
    if label is None:
        return "no label"
    return f"label {label!r} is not in the class list of {count}"


def note_empty(
    problems: Problems, class_names: tuple[str, ...], labels: list[int], after_skipping: bool
) -> None:
    """Note every class without an image."""
    if not class_names:
        problems.add("no classes")
    seen = set(labels)
    suffix = " left after skipping" if after_skipping else ""
    for index, class_name in enumerate(class_names):
        if index not in seen:
            problems.add(f"class {class_name!r} has no usable images{suffix}")


def list_problems(problems: list[str]) -> str:
    """Write the first 20 problems and how many there are."""
    shown = "; ".join(problems[:SHOWN])
    rest = len(problems) - SHOWN
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{count}: {shown}" + (f"; and {rest} more" if rest > 0 else "")
