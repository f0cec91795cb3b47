"""Exit codes, and errors as one message in place of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from aerogel.errors import AerogelError, compose

OK, PROBLEM, MISTAKE, INTERRUPTED = 0, 1, 2, 130

# Import name -> the extra that brings it. None: a package that Aerogel always needs.
EXTRAS: dict[str, str | None] = {
    "torch": None,
    "numpy": None,
    "safetensors": None,
    "yaml": None,
    "PIL": None,
    "rich": None,
    "diffusers": "parallel",
    "transformers": "condense",
    "peft": "condense",
    "accelerate": "condense",
    "datasets": "condense",
    "pyarrow": "condense",
    "sklearn": "condense",
    "jinja2": "report",
    "matplotlib": "report",
}
_INTERRUPTED = (
    "interrupted. Finished stages and the last checkpoint are kept; the same command continues from there."
)


def guard(act: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command and turn what it raises into a message on stderr and an exit code.

    With ``debug`` errors pass through. What is no error of the user's or of the machine's always does: a
    traceback is then what a bug report needs.
    """
    try:
        return act()
    except KeyboardInterrupt:
        if debug:
            raise
        _say(_INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, as in `aerogel env | head`, has enough; flushing at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except AerogelError as error:
        if debug:
            raise
        _say(str(error))
    except ModuleNotFoundError as error:
        if debug or explain_missing(error) is None:
            raise
        _say(str(explain_missing(error)))
    except OSError as error:
        if debug:
            raise
        _say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    return MISTAKE


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Say which extra brings the package that is missing, or None for one that no extra brings."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return compose(f"the package {package}", "an environment without it", install_hint(package))


def install_hint(package: str) -> str:
    """Return the command that installs a package of ``EXTRAS``."""
    extra = EXTRAS[package]
    return f'pip install "aerogel[{extra}]"' if extra else "pip install --force-reinstall aerogel"


def _say(message: str) -> None:
    sys.stderr.write(f"aerogel: {message}\n")
    sys.stderr.flush()
