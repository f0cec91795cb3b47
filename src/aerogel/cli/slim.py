"""`aerogel slim`: a smaller Segment Anything from photos without labels, with the receipt at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aerogel.cli.condense import write_page
from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.cli.slimming import Model, SlimSettings, choose_slim_folder, gather_slim_config

if TYPE_CHECKING:
    from aerogel.slim.config import SlimConfig

EXAMPLES = """Examples:
  aerogel slim facebook/sam-vit-base --images photos/ --ratio 0.77 --out small
  aerogel slim my-sam/ --images photos/ --ratio 0.5 --heads 6 --epochs 20
  aerogel slim my-sam/ --images photos/ --layout flex
  aerogel slim --recipe sam-nano-r10 --out nano-r10

A model that is called like one of the commands above is written ./plan.
"""
PLAN_EXAMPLES = """Examples:
  aerogel slim plan facebook/sam-vit-base --images photos/ --ratio 0.77
  aerogel slim plan my-sam/ --images photos/ --criterion magnitude
"""


def slim_command(
    model: Model = None,
    /,
    *,
    settings: SlimSettings | None = None,
    json: Annotated[
        bool, Flag, Parameter(help="End with one line of JSON on stdout; the tables go to stderr.")
    ] = False,
) -> int:
    """Slim a Segment Anything model by pruning and aligning in turn (SlimSAM).

    Photos are enough; no label is read. Every stage is a folder below --out. A run
    that was stopped at any moment goes on when the same command is given again. The
    slim model is the folder "model"; "report.html" shows its masks beside the
    teacher's.
    """
    settings = settings or SlimSettings()
    config = gather_slim_config(model, settings)
    folder = choose_slim_folder(config, settings.out)
    screen = Screen(json_wanted=json)
    cache = settings.teacher_cache
    screen.end(show_slimming(config, folder, screen, overwrite=settings.overwrite, teacher_cache=cache))
    return OK


def show_slimming(
    config: SlimConfig,
    folder: Path,
    screen: Screen,
    *,
    overwrite: bool = False,
    teacher_cache: Path | None = None,
) -> dict[str, Any]:
    """Run everything; show the receipt and where things are; return the figures. The demo does the same."""
    from aerogel.slim.account import describe_run
    from aerogel.slim.api import slim
    from aerogel.slim.run_folder import MODEL, REPORT

    result = slim(
        config.model,
        config.images,
        config=config,
        out=folder,
        overwrite=overwrite,
        command=read_command(),
        teacher_cache=teacher_cache,
    )
    report = describe_run(folder)
    page = write_page(report, folder / REPORT, screen)
    screen.show_receipt(report.receipt)
    if page is not None:
        screen.say(f"report      {page}")
    screen.say(f"slim model  {folder / MODEL}")
    places = {
        "folder": str(folder),
        "model": str(folder / MODEL),
        "report": None if page is None else str(page),
    }
    return {**result.to_dict(), **places}


def plan_command(
    model: Model = None,
    /,
    *,
    settings: SlimSettings | None = None,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Show what would stay, and write the plan; nothing is trained.

    All channels are ranked on the model as it is. A slimming turns the model first,
    unless that is off, and ranks the bottlenecks after the embedding was cut and
    aligned, so its own plan lists others. The plan is written to --out, plan.json if
    not given; what is set of the training plays no part.
    """
    from aerogel.core.devices import choose_device
    from aerogel.core.progress import announce
    from aerogel.slim.api import open_sources
    from aerogel.slim.draft import draft_plan

    settings = settings or SlimSettings()
    config = gather_slim_config(model, settings)
    path = settings.out or Path("plan.json")
    device = choose_device(config.device)
    announce(f"device: {device.value} ({device.reason})")
    sources = open_sources(config, config.model, config.images)
    draft = draft_plan(config, sources, path, device=device.value, overwrite=settings.overwrite)
    screen = Screen(json_wanted=json)
    rows = [
        (name, f"{before:,}", f"{after:,}", f"{100 * after / before:.1f} %")
        for name, before, after in draft.list_weights()
    ]
    header = ("", "before", "after", "left")
    screen.show_table(f"{config.model} at ratio {config.ratio:g}", header, rows, right=header[1:])
    screen.say(f"plan  {path}")
    screen.end({"plan": str(path), "digest": draft.plan.digest, "before": draft.before, "after": draft.after})
    return OK
