"""A smaller Segment Anything: coupled channels are ranked, cut out exactly and aligned (SlimSAM)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aerogel.core.area import Area

if TYPE_CHECKING:
    from aerogel.slim.agreement import find_objects, measure_agreement
    from aerogel.slim.alignment import AlignState, align, estimate_bytes
    from aerogel.slim.api import Slimmed, slim
    from aerogel.slim.canvas import Canvas
    from aerogel.slim.channels import Axis, Channels, Group
    from aerogel.slim.config import (
        AlignConfig,
        MasksConfig,
        ReconstructConfig,
        RotateConfig,
        ScoreConfig,
        SlimConfig,
        SurgeryConfig,
    )
    from aerogel.slim.draft import Draft, draft_plan
    from aerogel.slim.evaluation import evaluate
    from aerogel.slim.families.family import describe
    from aerogel.slim.families.flex_sam import FlexSamModel
    from aerogel.slim.families.flex_sam_hq import FlexSamHQModel
    from aerogel.slim.families.fused import fusing
    from aerogel.slim.families.mobile_sam import MobileSamModel, load_mobile_sam
    from aerogel.slim.families.opening import open_model
    from aerogel.slim.features import Bottleneck, Features, mask_tokens, mask_windows, observe
    from aerogel.slim.importance import score_channels
    from aerogel.slim.lesson import Lesson
    from aerogel.slim.losses import (
        Loss,
        bottleneck_loss,
        bottleneck_weight,
        embedding_loss,
        embedding_weight,
        mask_loss,
        output_loss,
    )
    from aerogel.slim.masks import mask_channels
    from aerogel.slim.pipeline import Pipeline
    from aerogel.slim.plan import Plan, identity_plan, load_plan
    from aerogel.slim.planning import make_plan
    from aerogel.slim.scores import Comparison, Evaluation, compare
    from aerogel.slim.segmenter import Segmenter
    from aerogel.slim.sources import Sources
    from aerogel.slim.surgery import apply_plan, apply_plan_, to_stock
    from aerogel.slim.widths import Widths, derive_widths

__all__ = [
    "AlignConfig",
    "AlignState",
    "Axis",
    "Bottleneck",
    "Canvas",
    "Channels",
    "Comparison",
    "Draft",
    "Evaluation",
    "Features",
    "FlexSamHQModel",
    "FlexSamModel",
    "Group",
    "Lesson",
    "Loss",
    "MasksConfig",
    "MobileSamModel",
    "Pipeline",
    "Plan",
    "ReconstructConfig",
    "RotateConfig",
    "ScoreConfig",
    "Segmenter",
    "SlimConfig",
    "Slimmed",
    "Sources",
    "SurgeryConfig",
    "Widths",
    "align",
    "apply_plan",
    "apply_plan_",
    "bottleneck_loss",
    "bottleneck_weight",
    "compare",
    "derive_widths",
    "describe",
    "draft_plan",
    "embedding_loss",
    "embedding_weight",
    "estimate_bytes",
    "evaluate",
    "find_objects",
    "fusing",
    "identity_plan",
    "load_mobile_sam",
    "load_plan",
    "make_plan",
    "mask_channels",
    "mask_loss",
    "mask_tokens",
    "mask_windows",
    "measure_agreement",
    "observe",
    "open_model",
    "output_loss",
    "score_channels",
    "slim",
    "to_stock",
]

_HOMES = {
    "agreement": ("find_objects", "measure_agreement"),
    "api": ("Slimmed", "slim"),
    "draft": ("Draft", "draft_plan"),
    "families.opening": ("open_model",),
    "pipeline": ("Pipeline",),
    "sources": ("Sources",),
    "alignment": ("AlignState", "align", "estimate_bytes"),
    "canvas": ("Canvas",),
    "channels": ("Axis", "Channels", "Group"),
    "config": (
        "AlignConfig",
        "MasksConfig",
        "ReconstructConfig",
        "RotateConfig",
        "ScoreConfig",
        "SlimConfig",
        "SurgeryConfig",
    ),
    "evaluation": ("evaluate",),
    "families.family": ("describe",),
    "families.flex_sam": ("FlexSamModel",),
    "families.flex_sam_hq": ("FlexSamHQModel",),
    "families.fused": ("fusing",),
    "families.mobile_sam": ("MobileSamModel", "load_mobile_sam"),
    "importance": ("score_channels",),
    "features": ("Bottleneck", "Features", "mask_tokens", "mask_windows", "observe"),
    "lesson": ("Lesson",),
    "losses": (
        "Loss",
        "bottleneck_loss",
        "bottleneck_weight",
        "embedding_loss",
        "embedding_weight",
        "mask_loss",
        "output_loss",
    ),
    "masks": ("mask_channels",),
    "plan": ("Plan", "identity_plan", "load_plan"),
    "planning": ("make_plan",),
    "scores": ("Comparison", "Evaluation", "compare"),
    "segmenter": ("Segmenter",),
    "surgery": ("apply_plan", "apply_plan_", "to_stock"),
    "widths": ("Widths", "derive_widths"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = Area
