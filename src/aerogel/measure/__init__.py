"""Measure what a model or a data set costs and what it is worth: frozen results with units and spread.

Every name is resolved on first use, so importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.measure.accuracy import mean_std, measure_accuracy, wilson_interval
    from aerogel.measure.bootstrap import (
        Interval,
        bootstrap_difference,
        bootstrap_mean,
        bootstrap_ratio,
    )
    from aerogel.measure.fidelity import frechet_distance, psnr, ssim
    from aerogel.measure.latency import measure_latency
    from aerogel.measure.macs import MacCount, count_macs
    from aerogel.measure.masks import boundary_band, boundary_iou, fill_boxes, find_boxes, mask_iou
    from aerogel.measure.memory import measure_command_memory, measure_memory
    from aerogel.measure.parameters import count_parameters
    from aerogel.measure.ranking import (
        score_augmentation,
        score_difference,
        score_labels,
        weigh_hard_labels,
        weigh_random,
    )
    from aerogel.measure.results import Measurement, Table
    from aerogel.measure.storage import measure_storage, size_bytes
    from aerogel.measure.units import format_bytes, format_duration, format_value

__all__ = [
    "Interval",
    "MacCount",
    "Measurement",
    "Table",
    "bootstrap_difference",
    "bootstrap_mean",
    "bootstrap_ratio",
    "boundary_band",
    "boundary_iou",
    "count_macs",
    "count_parameters",
    "fill_boxes",
    "find_boxes",
    "format_bytes",
    "format_duration",
    "format_value",
    "frechet_distance",
    "mask_iou",
    "mean_std",
    "measure_accuracy",
    "measure_command_memory",
    "measure_latency",
    "measure_memory",
    "measure_storage",
    "psnr",
    "score_augmentation",
    "score_difference",
    "score_labels",
    "size_bytes",
    "ssim",
    "weigh_hard_labels",
    "weigh_random",
    "wilson_interval",
]

_HOMES = {
    "Interval": "bootstrap",
    "MacCount": "macs",
    "Measurement": "results",
    "Table": "results",
    "bootstrap_difference": "bootstrap",
    "bootstrap_mean": "bootstrap",
    "bootstrap_ratio": "bootstrap",
    "boundary_band": "masks",
    "boundary_iou": "masks",
    "count_macs": "macs",
    "count_parameters": "parameters",
    "fill_boxes": "masks",
    "find_boxes": "masks",
    "format_bytes": "units",
    "format_duration": "units",
    "format_value": "units",
    "frechet_distance": "fidelity",
    "mask_iou": "masks",
    "mean_std": "accuracy",
    "measure_accuracy": "accuracy",
    "measure_command_memory": "memory",
    "measure_latency": "latency",
    "measure_memory": "memory",
    "measure_storage": "storage",
    "psnr": "fidelity",
    "score_augmentation": "ranking",
    "score_difference": "ranking",
    "score_labels": "ranking",
    "size_bytes": "storage",
    "ssim": "fidelity",
    "weigh_hard_labels": "ranking",
    "weigh_random": "ranking",
    "wilson_interval": "accuracy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
