"""Join the processes that Hugging Face accelerate started."""

from __future__ import annotations

from datetime import timedelta

from aerogel.core.crew import Crew
from aerogel.errors import MissingDependencyError, compose

_PATIENCE = timedelta(days=7)


def join_crew(device: str) -> Crew:
    """Return the processes that ``accelerate launch`` or ``torchrun`` started, or this one alone.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as missing:
        remedy = 'pip install "aerogel[slim]" or "aerogel[condense]"'
        raise MissingDependencyError(
            compose("accelerate, to train with", "no such package", remedy)
        ) from missing
    # The others wait for hours where the first works alone; a dead one is the launcher's to notice.
    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    return Crew(int(state.num_processes), int(state.process_index))
