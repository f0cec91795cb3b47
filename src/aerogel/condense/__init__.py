"""Training sets made light: a few images per class and a low-rank generator of their soft labels (HeLlO)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aerogel.core.area import Area

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed, condense
    from aerogel.condense.cache import CachedLabels
    from aerogel.condense.collation import DistillationCollator
    from aerogel.condense.comparison import Comparison, Row
    from aerogel.condense.condensed import CondensedSet, load_condensed
    from aerogel.condense.config import (
        CondenseConfig,
        FitConfig,
        ProjectorConfig,
        RefineConfig,
        SelectionConfig,
        StudentConfig,
        TeacherConfig,
        ViewConfig,
    )
    from aerogel.condense.continual import run_continual
    from aerogel.condense.curriculum import Curriculum
    from aerogel.condense.labels import (
        CorrectedLabels,
        HardLabels,
        LabelSource,
        NetworkLabels,
        OnePerImage,
        StoredLabels,
    )
    from aerogel.condense.pipeline import Pipeline
    from aerogel.condense.sources import Sources
    from aerogel.condense.trainer import DistillationTrainer
    from aerogel.condense.views import Views

__all__ = [
    "CachedLabels",
    "Comparison",
    "CondenseConfig",
    "Condensed",
    "CondensedSet",
    "CorrectedLabels",
    "Curriculum",
    "DistillationCollator",
    "DistillationTrainer",
    "FitConfig",
    "HardLabels",
    "LabelSource",
    "NetworkLabels",
    "OnePerImage",
    "Pipeline",
    "ProjectorConfig",
    "RefineConfig",
    "Row",
    "SelectionConfig",
    "Sources",
    "StoredLabels",
    "StudentConfig",
    "TeacherConfig",
    "ViewConfig",
    "Views",
    "condense",
    "load_condensed",
    "run_continual",
]

_HOMES = {
    "api": ("Condensed", "condense"),
    "cache": ("CachedLabels",),
    "collation": ("DistillationCollator",),
    "comparison": ("Comparison", "Row"),
    "condensed": ("CondensedSet", "load_condensed"),
    "config": (
        "CondenseConfig",
        "FitConfig",
        "ProjectorConfig",
        "RefineConfig",
        "SelectionConfig",
        "StudentConfig",
        "TeacherConfig",
        "ViewConfig",
    ),
    "continual": ("run_continual",),
    "curriculum": ("Curriculum",),
    "labels": (
        "CorrectedLabels",
        "HardLabels",
        "LabelSource",
        "NetworkLabels",
        "OnePerImage",
        "StoredLabels",
    ),
    "pipeline": ("Pipeline",),
    "sources": ("Sources",),
    "trainer": ("DistillationTrainer",),
    "views": ("Views",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = Area
