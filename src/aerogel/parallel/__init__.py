"""One image sooner: the parts of a denoiser on several devices, each on what is a step old (AsyncDiff)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.parallel.api import Run, parallelize, simulate
    from aerogel.parallel.clock import Clock
    from aerogel.parallel.config import ParallelConfig
    from aerogel.parallel.layout import Layout, lay_out
    from aerogel.parallel.plan import Plan
    from aerogel.parallel.ranks import Rank
    from aerogel.parallel.rounds import Round, plan_rounds, predict_speedup
    from aerogel.parallel.session import Schedule, Session
    from aerogel.parallel.simulator import Simulator
    from aerogel.parallel.stats import Stats
    from aerogel.parallel.trace import trace_calls

__all__ = [
    "Clock",
    "Layout",
    "ParallelConfig",
    "Plan",
    "Rank",
    "Round",
    "Run",
    "Schedule",
    "Session",
    "Simulator",
    "Stats",
    "lay_out",
    "parallelize",
    "plan_rounds",
    "predict_speedup",
    "simulate",
    "trace_calls",
]

_HOMES = {
    "api": ("Run", "parallelize", "simulate"),
    "config": ("ParallelConfig",),
    "plan": ("Plan",),
    "stats": ("Stats",),
    "clock": ("Clock",),
    "layout": ("Layout", "lay_out"),
    "ranks": ("Rank",),
    "rounds": ("Round", "plan_rounds", "predict_speedup"),
    "session": ("Schedule", "Session"),
    "simulator": ("Simulator",),
    "trace": ("trace_calls",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
