"""`aerogel report`: the page of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.errors import DataError, FolderExistsError, compose

EXAMPLES = """Examples:
  aerogel report condensed-train-ipc10
  aerogel report condensed-train-ipc10 --out train.html
"""


def report_command(
    folder: Annotated[Path, Parameter(help="Folder of a finished run.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Where to write the page; FOLDER/report.html if not given.")
    ] = None,
    overwrite: Annotated[bool, Flag, Parameter(help="Replace the file at --out.")] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Write the report of a finished run as one HTML file.

    It shows the images, the accuracy against the bytes of every kind of labels, the
    receipt, the settings and the environment, and needs no network.
    """
    screen = Screen(json_wanted=json)
    page = out if out is not None else folder / "report.html"
    if page.is_dir():
        raise DataError(
            compose("the name of a file at --out", f"the folder {page}", f"try --out {page}/report.html")
        )
    if out is not None and out.exists() and not overwrite:
        raise FolderExistsError(
            compose(f"nothing at {out}", "a file", "choose another name, or add --overwrite")
        )
    from aerogel.condense.account import describe
    from aerogel.report import write_report

    written = write_report(describe(folder), page).resolve()
    screen.say(f"report  {written}")
    screen.end({"report": str(written), "bytes": written.stat().st_size})
    return OK
