"""`aerogel env`: what a bug report needs to know about this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

EXAMPLES = """Examples:
  aerogel env
  aerogel env --json
"""


def env_command(
    *, json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False
) -> int:
    """Describe machine and packages, ready to be pasted into a bug report."""
    from aerogel.core.environment import environment

    found = environment()
    screen = Screen(json_wanted=json)
    for name, value in found.items():
        screen.say(f"- {name}: {value}")
    screen.end(found)
    return OK
