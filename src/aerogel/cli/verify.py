"""`aerogel condense verify`: whether a condensed set is what was made, byte for byte and label for label."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK, PROBLEM
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.cli.size import find_archive
from aerogel.errors import IntegrityError, MismatchError

EXAMPLES = """Examples:
  aerogel condense verify tiny-set
  aerogel condense verify condensed-train-ipc10 && echo sound

Exit codes: 0 all sound, 1 a problem found, 2 it is no folder of Aerogel's.
"""


def verify_command(
    folder: Annotated[Path, Parameter(help="A condensed set, or the folder of a run.")],
    /,
    *,
    backbone: Annotated[
        str | None, Parameter(help="Where the backbone lies, if not where the set says.")
    ] = None,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Check a condensed set, byte for byte and label for label.

    Every file is held to the manifest, and the label generator to the labels that were
    recorded when it was made. In the folder of a run every finished stage is checked.
    """
    from aerogel.condense.condensed import load_condensed
    from aerogel.core.folders import verify_folder

    place = find_archive(folder)
    checks: list[tuple[str, Callable[[], object]]] = [
        (f"files of {place.name}", lambda: load_condensed(place)),
        ("labels as recorded", lambda: load_condensed(place, backbone=backbone).generator),
    ]
    if place != folder:
        stages = [path.parent for path in sorted(folder.rglob("manifest.json")) if path.parent != place]
        checks += [
            (f"files of {stage.relative_to(folder)}", partial(verify_folder, stage)) for stage in stages
        ]
    found = [(name, find_fault(check)) for name, check in checks]
    screen = Screen(json_wanted=json)
    rows = [(name, "ok" if fault is None else "problem", fault or "") for name, fault in found]
    screen.show_table(str(folder), ("what", "state", "why"), rows)
    problems = {name: fault for name, fault in found if fault is not None}
    screen.end({"folder": str(folder), "ok": not problems, "problems": problems})
    return PROBLEM if problems else OK


def find_fault(check: Callable[[], object]) -> str | None:
    """Run a check; return what is wrong, or None."""
    try:
        check()
    except (IntegrityError, MismatchError) as error:
        return str(error)
    return None
