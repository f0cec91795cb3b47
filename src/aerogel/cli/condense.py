"""`aerogel condense`: the whole path from labelled images to a condensed set, with the receipt at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag, Settings, choose_folder, gather_config

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed
    from aerogel.condense.comparison import Row
    from aerogel.condense.config import CondenseConfig
    from aerogel.report import Report

EXAMPLES = """Examples:
  aerogel condense train/ --ipc 10
  aerogel condense --recipe digits --out digits-10
  aerogel condense owner/name --size 64 --backbone openai/clip-vit-base-patch32
  aerogel condense train/ --set teacher.fit.epochs=60 --set student.seeds=[0,1]

A folder that is called like one of the commands above is written ./teacher.
"""


def condense_command(
    data: Annotated[
        str | None, Parameter(help='Images: a path, "digits", "fashion-mnist", or a hub name.')
    ] = None,
    /,
    *,
    settings: Settings | None = None,
    no_compare: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Stop when the set is packed; train no students to compare its labels.",
        ),
    ] = False,
    json: Annotated[
        bool, Flag, Parameter(help="End with one line of JSON on stdout; the tables go to stderr.")
    ] = False,
) -> int:
    """Condense a labelled image set: a few images per class, a light label generator.

    Every stage is a folder below --out. A run that was stopped at any moment goes
    on when the same command is given again. The condensed set is the folder
    "archive"; "report.html" tells how it was made and how good it is.
    """
    settings = settings or Settings()
    config = gather_config(data, settings)
    folder = choose_folder(config, settings.out)
    screen = Screen(json_wanted=json)
    figures = show_condensing(config, folder, screen, overwrite=settings.overwrite, compare=not no_compare)
    if figures is not None:
        screen.end(figures)
    return OK


def show_condensing(
    config: CondenseConfig, folder: Path, screen: Screen, *, overwrite: bool = False, compare: bool = True
) -> dict[str, Any] | None:
    """Run everything; show the accuracies, the receipt and where things are; return the figures.

    Of several processes all but the first return None. The demo does the same.
    """
    from aerogel.condense.account import describe
    from aerogel.condense.api import condense

    result = condense(
        config.dataset,
        config=config,
        out=folder,
        overwrite=overwrite,
        command=read_command(),
        compare=compare,
    )
    if not result.pipeline.leads:
        return None
    report = describe(result)
    page = write_page(report, folder / "report.html", screen)
    _show_rows(result, screen)
    screen.show_receipt(report.receipt)
    archive = folder / "archive"
    screen.say(f"condensed set  {archive}")
    if page is not None:
        screen.say(f"report         {page}")
    places = {"folder": str(folder), "archive": str(archive), "report": None if page is None else str(page)}
    return {**result.to_dict(), **places}


def write_page(report: Report, path: Path, screen: Screen) -> Path | None:
    """Write the report; without the packages it needs, say so and return None, for the run itself is done."""
    from aerogel.errors import MissingDependencyError
    from aerogel.report import write_report

    try:
        return write_report(report, path).resolve()
    except MissingDependencyError as error:
        screen.say(f"no report: {error}; then: aerogel report {path.parent}")
        return None


def _show_rows(result: Condensed, screen: Screen) -> None:
    if not result.rows:
        return
    from aerogel.condense.account import write_accuracy
    from aerogel.condense.exhibits import name_row
    from aerogel.measure import format_bytes

    network = result.config.student.network
    rows = [
        (
            name_row(row),
            format_bytes(row.label_bytes),
            format_bytes(row.backbone_bytes) if row.backbone_bytes else "",
            write_accuracy(row.accuracy),
        )
        for row in result.rows
        if row.network in ("", network)
    ]
    header = ("labels", "label bytes", "public backbone", "accuracy")
    screen.show_table("Students on test images", header, rows, right=header[1:])
    _show_networks(result.rows, network, screen)
    _show_scores(result.rows, network, screen)


def _show_networks(rows: Sequence[Row], network: str, screen: Screen) -> None:
    from aerogel.condense.exhibits import name_labels
    from aerogel.condense.standing import cross_networks, list_networks, write_percent

    crossed = cross_networks(rows, network)
    if not crossed:
        return
    networks = list_networks(crossed)
    cells = [
        (name_labels(row.labels), row.images, *(write_percent(row.accuracies.get(name)) for name in networks))
        for row in crossed
    ]
    header = ("labels", "images", *networks)
    screen.show_table("Accuracy by network (%)", header, cells, right=networks)


def _show_scores(rows: Sequence[Row], network: str, screen: Screen) -> None:
    from aerogel.condense.exhibits import name_labels
    from aerogel.condense.standing import rank_rows, write_share

    standings = rank_rows(rows, network)
    if not standings:
        return
    cells = [
        (
            name_labels(each.labels),
            *(write_share(score) for score in (each.ior, each.hlr, each.lrs, each.ars)),
        )
        for each in standings
    ]
    header = ("labels", "IOR", "HLR", "LRS", "ARS")
    screen.show_table("Scores of DD-Ranking, as shares", header, cells, right=header[1:])
