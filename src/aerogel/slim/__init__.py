"""A smaller Segment Anything: coupled channels are ranked, cut out exactly and aligned (SlimSAM)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.slim.alignment import AlignState, align, estimate_bytes
    from aerogel.slim.canvas import Canvas
    from aerogel.slim.channels import Axis, Channels, Group
    from aerogel.slim.config import AlignConfig
    from aerogel.slim.evaluation import evaluate
    from aerogel.slim.families.family import describe
    from aerogel.slim.families.flex_sam import FlexSamModel
    from aerogel.slim.families.flex_sam_hq import FlexSamHQModel
    from aerogel.slim.families.mobile_sam import MobileSamModel, load_mobile_sam
    from aerogel.slim.features import Bottleneck, Features, mask_tokens, mask_windows, observe
    from aerogel.slim.lesson import Lesson
    from aerogel.slim.losses import (
        Loss,
        bottleneck_loss,
        bottleneck_weight,
        embedding_loss,
        embedding_weight,
        output_loss,
    )
    from aerogel.slim.masks import mask_channels
    from aerogel.slim.plan import Plan, identity_plan, load_plan
    from aerogel.slim.planning import make_plan
    from aerogel.slim.scores import Comparison, Evaluation, compare
    from aerogel.slim.segmenter import Segmenter
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
    "Evaluation",
    "Features",
    "FlexSamHQModel",
    "FlexSamModel",
    "Group",
    "Lesson",
    "Loss",
    "MobileSamModel",
    "Plan",
    "Segmenter",
    "Widths",
    "align",
    "apply_plan",
    "apply_plan_",
    "bottleneck_loss",
    "bottleneck_weight",
    "compare",
    "derive_widths",
    "describe",
    "embedding_loss",
    "embedding_weight",
    "estimate_bytes",
    "evaluate",
    "identity_plan",
    "load_mobile_sam",
    "load_plan",
    "make_plan",
    "mask_channels",
    "mask_tokens",
    "mask_windows",
    "observe",
    "output_loss",
    "to_stock",
]

_HOMES = {
    "alignment": ("AlignState", "align", "estimate_bytes"),
    "canvas": ("Canvas",),
    "channels": ("Axis", "Channels", "Group"),
    "config": ("AlignConfig",),
    "evaluation": ("evaluate",),
    "families.family": ("describe",),
    "families.flex_sam": ("FlexSamModel",),
    "families.flex_sam_hq": ("FlexSamHQModel",),
    "families.mobile_sam": ("MobileSamModel", "load_mobile_sam"),
    "features": ("Bottleneck", "Features", "mask_tokens", "mask_windows", "observe"),
    "lesson": ("Lesson",),
    "losses": (
        "Loss",
        "bottleneck_loss",
        "bottleneck_weight",
        "embedding_loss",
        "embedding_weight",
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
