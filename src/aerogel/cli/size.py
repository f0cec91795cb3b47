"""`aerogel condense size`: what a condensed set weighs on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

EXAMPLES = """Examples:
  aerogel condense size tiny-set
  aerogel condense size condensed-train-ipc10
"""


def size_command(
    folder: Annotated[Path, Parameter(help="A condensed set, or the folder of a run.")],
    /,
    *,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Weigh a condensed set: its images, its label generator, its public backbone."""
    from aerogel.condense.archive import IMAGES, LABELS, RESIDUAL, delta_bytes, open_archive
    from aerogel.measure import format_bytes, size_bytes

    place = find_archive(folder)
    facts = open_archive(place).facts
    images, delta, whole = size_bytes(place / IMAGES), delta_bytes(place), size_bytes(place)
    backbone = int(facts["backbone"]["bytes"])
    residual: dict[str, tuple[int, str]] = {}
    if RESIDUAL in facts:
        note = f"{facts[RESIDUAL]['codec']}, views of {facts[RESIDUAL]['epochs']} epochs"
        residual["of it stored residuals"] = (size_bytes(place / LABELS / RESIDUAL), note)
    entries = {
        "images": (images, f"{facts['images']:,} of {facts['size']} x {facts['size']} pixels"),
        "label generator (delta)": (delta, f"the change to {facts['backbone']['name']}"),
        **residual,
        "manifest and card": (whole - images - delta, ""),
        "the whole folder": (whole, ""),
        "public backbone": (backbone, "fetched once, shared by all sets made with it"),
        "the whole folder and backbone": (whole + backbone, ""),
    }
    screen = Screen(json_wanted=json)
    rows = [(name, format_bytes(size), f"{size:,}", note) for name, (size, note) in entries.items()]
    screen.show_table(str(place), ("what", "size", "bytes", "note"), rows, right=("size", "bytes"))
    screen.end({"folder": str(place), "bytes": {name: size for name, (size, _) in entries.items()}})
    return OK


def find_archive(folder: Path) -> Path:
    """Return the condensed set at ``folder``: itself, or ``archive`` in the folder of a run."""
    inner = folder / "archive"
    return inner if (inner / "manifest.json").is_file() else folder
