"""Count parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aerogel.errors import DataError, compose
from aerogel.measure.results import Measurement

if TYPE_CHECKING:
    from torch import nn


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> Measurement:
    """Count the numbers in a model's parameters; a parameter used in two places counts once, buffers do not.

    With ``trainable_only`` frozen parameters are left out. Works on any device, meta included.

    Raises:
        DataError: the model has lazy parameters whose shape is not known yet.
    """
    from torch.nn.parameter import is_lazy

    total = 0
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise DataError(
                compose(
                    "parameters of known shape",
                    f"lazy parameter {name!r}",
                    "run the model once on real input",
                )
            )
        if parameter.requires_grad or not trainable_only:
            total += parameter.numel()
    return Measurement("trainable parameters" if trainable_only else "parameters", total, "parameters")
