"""`aerogel report`: the page of a finished run, whatever it made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.errors import DataError, FolderExistsError, IntegrityError, compose

if TYPE_CHECKING:
    from aerogel.report import Report

EXAMPLES = """Examples:
  aerogel report condensed-train-ipc10
  aerogel report slim-run
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

    It shows what `aerogel condense` or `aerogel slim` made in the folder, the
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
    from aerogel.report import write_report

    written = write_report(describe_folder(folder), page).resolve()
    screen.say(f"report  {written}")
    screen.end({"report": str(written), "bytes": written.stat().st_size})
    return OK


def describe_folder(folder: Path) -> Report:
    """Describe a finished run by the verb that its recipe is for.

    Raises:
        DataError: there is no finished run in the folder.
        IntegrityError: a file in it is damaged.
    """
    kind = _read_kind(folder)
    if kind == "condense":
        from aerogel.condense.account import describe

        return describe(folder)
    if kind == "slim":
        from aerogel.slim.account import describe_run

        return describe_run(folder)
    got = f"a run of another kind, {kind!r}," if kind else "none" if folder.is_dir() else "no folder"
    raise DataError(
        compose(
            "the folder of a finished run of `aerogel condense` or `aerogel slim`",
            f"{got} at {folder}",
            "pass the folder that it wrote to, or finish it by the same command",
        )
    )


def _read_kind(folder: Path) -> str | None:
    """Return the type that a finished run's recipe says it is of."""
    import yaml

    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        return None
    try:
        found = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as failure:
        raise IntegrityError(
            compose(f"a readable recipe in {recipe}", str(failure), "give the command of the run again")
        ) from failure
    kind = found.get("type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else None
