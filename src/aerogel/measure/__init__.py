"""Measure what a model or a data set costs and what it is worth: frozen results with units and spread.

Every name is resolved on first use, so importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.measure.accuracy import mean_std, measure_accuracy, wilson_interval
    from aerogel.measure.fidelity import frechet_distance, psnr, ssim
    from aerogel.measure.latency import measure_latency
    from aerogel.measure.macs import MacCount, count_macs
    from aerogel.measure.memory import measure_command_memory, measure_memory
    from aerogel.measure.parameters import count_parameters
    from aerogel.measure.results import Measurement, Table
    from aerogel.measure.storage import measure_storage, size_bytes
    from aerogel.measure.units import format_bytes, format_value

__all__ = [
    "MacCount",
    "Measurement",
    "Table",
    "count_macs",
    "count_parameters",
    "format_bytes",
    "format_value",
    "frechet_distance",
    "mean_std",
    "measure_accuracy",
    "measure_command_memory",
    "measure_latency",
    "measure_memory",
    "measure_storage",
    "psnr",
    "size_bytes",
    "ssim",
    "wilson_interval",
]

_HOMES = {
    "MacCount": "macs",
    "Measurement": "results",
    "Table": "results",
    "count_macs": "macs",
    "count_parameters": "parameters",
    "format_bytes": "units",
    "format_value": "units",
    "frechet_distance": "fidelity",
    "mean_std": "accuracy",
    "measure_accuracy": "accuracy",
    "measure_command_memory": "memory",
    "measure_latency": "latency",
    "measure_memory": "memory",
    "measure_storage": "storage",
    "psnr": "fidelity",
    "size_bytes": "storage",
    "ssim": "fidelity",
    "wilson_interval": "accuracy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
