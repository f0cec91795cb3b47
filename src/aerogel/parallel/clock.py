"""Tell from the scheduler which image is being made, and which of its steps comes next."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Watch(Protocol):
    """Take part in what a scheduler is asked for."""

    def begin(self) -> None:
        """Do what has to be done before a new image."""
        ...

    def agree(self, values: Any) -> None:
        """Make the samples in ``values`` the same on all ranks, in their place."""
        ...


class _Instead:
    """Stand in for a scheduler's method, signature and all; a copy of the scheduler has the method itself."""

    def __init__(self, scheduler: Any, name: str, run: Callable[..., Any]) -> None:
        self._scheduler, self._name, self._run = scheduler, name, run
        # Pipelines read from the signature what they may pass.
        functools.update_wrapper(self, getattr(scheduler, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __reduce__(self) -> Any:
        # Asked for when the copy is made but still empty: it gives its class's own method.
        return getattr, (self._scheduler, self._name)


class Clock:
    """Follow a diffusers scheduler through its own calls, until :meth:`remove`.

    A run begins with ``set_timesteps``; a step ends with ``step``. So a denoiser that is called twice in one
    step, or a scheduler of second order that asks for several steps per noise level, is told apart from the
    next step without counting the denoiser's calls. ``watch`` is told of every new image, and of the samples
    that the first step is given and that all steps return. ``current`` gives the scheduler in use, which a
    pipeline may be given at any time; :meth:`refresh` looks.
    """

    def __init__(
        self, scheduler: Any, watch: Watch | None = None, current: Callable[[], Any] | None = None
    ) -> None:
        self.run = 0
        self.step = 0
        self._found = 0
        self._watch, self._current = watch, current or (lambda: scheduler)
        self.attach()

    def attach(self) -> None:
        """Follow the scheduler that is in use now."""
        self._scheduler = scheduler = self._current()
        self._before = {name: vars(scheduler).get(name) for name in ("set_timesteps", "step")}
        begin, advance, watch = scheduler.set_timesteps, scheduler.step, self._watch

        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self._begin()
            return begin(*args, **kwargs)

        def step(*args: Any, **kwargs: Any) -> Any:
            if self.step == 0:
                self._found = _locate(
                    scheduler.timesteps, args[1] if len(args) > 1 else kwargs.get("timestep")
                )
                if watch:
                    watch.agree((args[2:3], kwargs.get("sample")))
            found = advance(*args, **kwargs)
            if watch:
                watch.agree(found)
            self.step += 1
            return found

        scheduler.set_timesteps = _Instead(scheduler, "set_timesteps", set_timesteps)
        scheduler.step = _Instead(scheduler, "step", step)

    def _begin(self) -> None:
        self.run += 1
        self.step = self._found = 0
        if self._watch:
            self._watch.begin()

    def refresh(self) -> None:
        """Follow the scheduler that is in use now; with another one another image has begun."""
        if self._current() is not self._scheduler:
            self.remove()
            self.attach()
            self._begin()

    def remove(self) -> None:
        """Give the scheduler its own methods back."""
        for name, before in self._before.items():
            if before is None:
                vars(self._scheduler).pop(name, None)
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
        # Schedulers that keep no begin are followed from where the first step was.
        begin = getattr(self._scheduler, "begin_index", None)
        return int(self._found if begin is None else begin)


def is_followed(scheduler: Any) -> bool:
    """Tell whether a clock stands in for the scheduler's methods."""
    return any(isinstance(each, _Instead) for each in vars(scheduler).values())


def _locate(times: Any, time: Any) -> int:
    """Return the first place of ``time`` among the scheduler's ``times``, 0 where there is none."""
    given = torch.as_tensor(0.0 if time is None else time).flatten()
    if given.numel() != 1:
        return 0
    places = (torch.as_tensor(times).cpu() == given.cpu()).nonzero()
    return int(places[0]) if len(places) else 0
