"""Tell from the scheduler which image is being made, and which of its steps comes next."""

from __future__ import annotations

from typing import Any


class Clock:
    """Follow a diffusers scheduler through its own calls, until :meth:`remove`.

    A run begins with ``set_timesteps``; a step ends with ``step``. So a denoiser that is called twice in one
    step, or a scheduler of second order that asks for several steps per noise level, is told apart from the
    next step without counting the denoiser's calls.
    """

    def __init__(self, scheduler: Any) -> None:
        self.run = 0
        self.step = 0
        self._scheduler = scheduler
        self._before = {name: vars(scheduler).get(name) for name in ("set_timesteps", "step")}
        begin, advance = scheduler.set_timesteps, scheduler.step

        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self.run += 1
            self.step = 0
            return begin(*args, **kwargs)

        def step(*args: Any, **kwargs: Any) -> Any:
            found = advance(*args, **kwargs)
            self.step += 1
            return found

        scheduler.set_timesteps, scheduler.step = set_timesteps, step

    def remove(self) -> None:
        """Give the scheduler its own methods back."""
        for name, before in self._before.items():
            if before is None:
                delattr(self._scheduler, name)
            else:
                setattr(self._scheduler, name, before)

    @property
    def steps(self) -> int:
        """Return how many steps the run has; image to image begins inside the scheduler's list."""
        return max(1, len(self._scheduler.timesteps) - self._first)

    def time(self, step: int) -> float:
        """Return the scheduler's time at ``step`` of the run, counted from its first."""
        times = self._scheduler.timesteps
        return float(times[min(max(0, self._first + step), len(times) - 1)])

    @property
    def _first(self) -> int:
        return int(getattr(self._scheduler, "begin_index", None) or 0)
