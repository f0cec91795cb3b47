"""`aerogel condense continual`: students of classes that arrive in groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from aerogel.cli.condense import write_page
from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

if TYPE_CHECKING:
    from aerogel.condense.curriculum import Curriculum

EXAMPLES = """Examples:
  aerogel condense continual digits-10 --steps 5
  aerogel condense continual digits-10 --steps 10 --labels generator

The result goes into the report of the run. A command that was stopped
continues when it is given again.
"""


def continual_command(
    folder: Annotated[Path, Parameter(help="The folder of a finished run.")],
    /,
    *,
    steps: Annotated[int, Parameter(help="In how many groups the classes arrive.")] = 5,
    labels: Annotated[
        tuple[Literal["generator", "teacher", "hard"], ...],
        Parameter(
            negative="",
            show_default=False,
            help="Labels to learn from, generator and hard if not given; may be repeated.",
        ),
    ] = ("generator", "hard"),
    data: Annotated[str | None, Parameter(help="Where the run's images are now, if they were moved.")] = None,
    device: Annotated[
        str | None, Parameter(help='"auto", "cpu", "cuda" or "cuda:1"; as the recipe says if not given.')
    ] = None,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Learn the classes in groups, as they would arrive over time.

    At each step a student is trained anew on the condensed images of all classes
    so far and scored on the test images of these classes. Each seed of the run has
    an order of classes of its own.
    """
    from aerogel.condense.account import describe
    from aerogel.condense.continual import run_continual

    screen = Screen(json_wanted=json)
    found = run_continual(
        folder, steps=steps, labels=labels, data=data, device=device, command=read_command()
    )
    page = write_page(describe(folder), folder / "report.html", screen)
    show_lanes(found, screen)
    if page is not None:
        screen.say(f"report  {page}")
    screen.end({"folder": str(folder), "report": None if page is None else str(page), **found.to_dict()})
    return OK


def show_lanes(found: Curriculum, screen: Screen) -> None:
    """Show the accuracy after each step, a row for each kind of labels."""
    from aerogel.condense.curriculum import name_lane
    from aerogel.condense.exhibits import name_labels
    from aerogel.condense.standing import write_percent

    columns = tuple(f"{count} classes" for count in found.classes)
    rows = [
        (
            name_lane(lane, name_labels),
            *(write_percent(each) for each in lane.accuracies),
            write_percent(lane.mean),
        )
        for lane in found.lanes
    ]
    header = ("labels", *columns, "mean")
    screen.show_table("Accuracy on the classes seen (%)", header, rows, right=header[1:])
