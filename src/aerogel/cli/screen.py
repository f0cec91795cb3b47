"""What commands write: tables and sentences for people, one last line of JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from aerogel.report import Receipt, ReceiptLine

_WIDTH = 100


class Screen:
    """Write for people to stdout; where the caller wants JSON, to stderr, and the JSON alone to stdout."""

    def __init__(self, *, json_wanted: bool = False) -> None:
        self.json_wanted = json_wanted

    @property
    def people(self) -> TextIO:
        """Return the stream that people read."""
        return sys.stderr if self.json_wanted else sys.stdout

    def say(self, text: str) -> None:
        """Write a line for people."""
        self.people.write(f"{text}\n")

    def show_table(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
    ) -> None:
        """Write a table; the columns named in ``right`` are set to the right."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), box=box.SIMPLE, title_justify="left", pad_edge=False)
        for name in header:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._draw(table)

    def show_receipt(self, receipt: Receipt) -> None:
        """Write a receipt: paid, saved, lost, and the sentence to remember."""
        groups: tuple[tuple[str, Sequence[ReceiptLine]], ...] = (
            ("paid", receipt.paid),
            ("saved", receipt.saved),
            ("lost", receipt.lost),
        )
        rows = [
            (name if number == 0 else "", line.label, line.value, line.note)
            for name, lines in groups
            for number, line in enumerate(lines)
        ]
        self.show_table("The receipt", ("", "what", "value", "note"), rows, right=("value",))
        if receipt.total:
            self.say(receipt.total)

    def end(self, data: Mapping[str, Any]) -> None:
        """Write the one line of JSON, if it is wanted."""
        if self.json_wanted:
            self.people.flush()
            sys.stdout.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    def _draw(self, table: Any) -> None:
        from rich.console import Console

        stream = self.people
        # A fixed width off a terminal, so that logs and pipes get the same text everywhere.
        width = None if stream.isatty() else _WIDTH
        Console(file=stream, width=width, highlight=False, soft_wrap=False).print(table)
