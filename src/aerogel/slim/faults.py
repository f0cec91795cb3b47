"""Put back, one by one, what the published code does wrong, or forget all: to measure what it is worth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from aerogel.core.randomness import seed_torch
from aerogel.slim.families import describe
from aerogel.slim.plan import Plan

_RELATIVE = ("rel_pos_h", "rel_pos_w")


def forget_positions_(model: nn.Module) -> None:
    """Set all relative positions of the encoder to zero, as the published code does after each pruning."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in _RELATIVE:
                parameter.zero_()


def change_temperature_(model: nn.Module, plan: Plan) -> None:
    """Undo what keeps the logits of attention where ``plan`` cut dimensions off the heads.

    Surgery multiplies keys by sqrt(d_new / d_old); without that, attention divides by sqrt(d_new) what was
    trained to be divided by sqrt(d_old), as in the published code. ``model`` is what the plan left.
    """
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for group in describe(model).of_kind("head_dims"):
            factor = math.sqrt(plan.sizes[group.name] / group.size)
            for axis in group.axes:
                if axis.role == "key" and axis.parameter in parameters:
                    end = axis.offset + axis.repeats * group.size * axis.block
                    parameters[axis.parameter][axis.offset : end] *= factor


def forget_weights_(model: nn.Module, seed: int) -> None:
    """Draw the weights of the encoder anew: what is left to align is its shape alone.

    Linear layers, convolutions and norms start as torch starts them, absolute positions from N(0, 0.02²),
    relative ones at zero. The last norm stays: its weights are the mean and size of each channel of the
    embedding, which no student should have to find by small steps from 0 and 1.
    """
    encoder: Any = getattr(model, "vision_encoder", model)
    with torch.no_grad(), seed_torch(seed):
        for module in encoder.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and module is not encoder.neck.layer_norm2:
                reset()
        for name, parameter in encoder.named_parameters():
            if name == "pos_embed":
                parameter.normal_(0.0, 0.02)
    forget_positions_(encoder)
