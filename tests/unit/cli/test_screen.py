"""People read tables, machines one line of JSON, and neither gets the other's."""

from __future__ import annotations

import json

import pytest

from aerogel.cli.screen import Screen
from aerogel.report import Receipt, ReceiptLine


def test_without_json_people_read_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.say("a line")
    screen.end({"not": "wanted"})
    assert capsys.readouterr() == ("a line\n", "")


def test_with_json_stdout_holds_that_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(json_wanted=True)
    screen.say("a line")
    screen.show_table("title", ("a", "b"), [("1", "x [bold]"), ("2", "ü")], right=("a",))
    screen.end({"name": "ü\n"})
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert json.loads(said.out) == {"name": "ü\n"}
    assert all(word in said.err for word in ("a line", "title", "x [bold]"))


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Screen(json_wanted=True).end({"loss": float("nan")})


def test_a_receipt_names_each_group_once(capsys: pytest.CaptureFixture[str]) -> None:
    paid = (ReceiptLine("teacher", "4 s", "30 epochs"), ReceiptLine("packing", "1 s"))
    Screen().show_receipt(
        Receipt(paid=paid, lost=(ReceiptLine("to all", "nothing"),), total="little for much")
    )
    text = capsys.readouterr().out
    assert text.count("paid") == 1 and "saved" not in text
    assert text.rstrip().endswith("little for much")
    assert text.index("teacher") < text.index("packing") < text.index("lost") < text.index("to all")
