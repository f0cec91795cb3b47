"""`aerogel demo`: the whole path on a real image set that is already installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.condense import run_condense
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag, Settings, choose_folder, gather_config

EXAMPLES = """Examples:
  aerogel demo
  aerogel demo --out my-demo
"""


def demo_command(
    *,
    out: Annotated[Path, Parameter(help="Folder of the run.")] = Path("aerogel-demo"),
    overwrite: Annotated[
        bool, Flag, Parameter(help="Replace stages that other settings made in that folder.")
    ] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Condense real handwritten digits in minutes, and write the report.

    The digits come with scikit-learn; neither a network nor a GPU is needed. The same as
    `aerogel condense --recipe digits` on one processor core. A run that was stopped goes
    on when the same command is given again.
    """
    from aerogel.core.devices import limit_threads
    from aerogel.core.progress import announce

    config = gather_config(None, Settings(recipe="digits", device="cpu"))
    folder = choose_folder(config, out)
    announce(f"condensing {config.dataset} to {config.ipc} images per class in {folder}; this takes minutes")
    # Networks this small gain nothing from threads, and lose a lot where other work keeps the cores busy.
    with limit_threads(1):
        return run_condense(config, folder, Screen(json_wanted=json), overwrite=overwrite)
