"""`aerogel condense push`: send a condensed set to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag
from aerogel.cli.size import find_archive

EXAMPLES = """Examples:
  aerogel condense push tiny-set anna/tiny-set
  aerogel condense push condensed-train-ipc10 anna/train-ipc10 --private
"""


def push_command(
    folder: Annotated[Path, Parameter(help="A condensed set, or the folder of a run.")],
    repo: Annotated[str, Parameter(help="The dataset repository on the hub: user/name.")],
    /,
    *,
    private: Annotated[bool, Flag, Parameter(help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, Parameter(show_default=False, help="The branch to write to, if not main.")
    ] = None,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Send a condensed set to the Hugging Face hub, verified first.

    Exactly the files of its manifest are sent. Log in once with: hf auth login.
    The set then opens anywhere with aerogel.load_condensed("user/name").
    """
    from aerogel.condense.condensed import load_condensed

    place = find_archive(folder)
    data = load_condensed(place)
    address = data.push_to_hub(repo, private=private, revision=revision)
    screen = Screen(json_wanted=json)
    screen.say(f"sent  {address}")
    screen.end({"folder": str(place), "repo": repo, "address": address, "digest": data.manifest.digest})
    return OK
