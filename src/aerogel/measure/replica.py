"""Copy a model, weights and all or without, leaving the original alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from aerogel.errors import DataError, compose

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copy_model(model: nn.Module, device: str | None) -> nn.Module:
    """Copy a model to a device in evaluation mode, without gradients and without the user's hooks.

    On "meta" no weight is read or allocated. On None the copy has the very parameters of the original, to be
    read only; all other tensors are copied where they are. Tied weights stay tied. Hooks of
    ``torch.nn.utils`` (weight norm, spectral norm, pruning) are kept, because they compute a weight; others
    may record or change what passes. A compiled model is copied as the module it was compiled from.

    Raises:
        DataError: the model has lazy parameters, or holds something that cannot be copied.
    """
    source = getattr(model, "_orig_mod", model)
    memo: dict[int, Any] = {}
    for name, tensor in source.named_parameters():
        if is_lazy(tensor):
            raise DataError(
                compose(
                    "parameters of known shape",
                    f"lazy parameter {name!r}",
                    "run the model once on real input",
                )
            )
    _plan(source, device, memo)
    try:
        replica = copy.deepcopy(source, memo)
    except (TypeError, RuntimeError) as error:
        raise DataError(
            compose("a model that copy.deepcopy can copy", f"{error}", "pass the part of it that computes")
        ) from error
    return replica.eval()


def _plan(model: nn.Module, device: str | None, memo: dict[int, Any]) -> None:
    """Tell deepcopy what stands for every tensor and hook table that can be reached from the model.

    Covers tensors that are not registered (in attributes, lists, dicts) as well: deepcopy refuses those that
    carry a gradient history and would leave the others behind on their device.
    """
    stack: list[Any] = [model]
    seen: set[int] = set()
    while stack:
        each = stack.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            memo[id(each)] = _stand_in(each, device)
        elif isinstance(each, nn.Module):
            for name, value in vars(each).items():
                if name in _HOOKS:
                    memo[id(value)] = OrderedDict(
                        (key, hook) for key, hook in value.items() if _computes(hook)
                    )
                else:
                    stack.append(value)
        elif isinstance(each, dict):
            stack.extend(each.values())
        elif isinstance(each, (list, tuple, set)):
            stack.extend(each)


def _computes(hook: object) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils.")


def _stand_in(tensor: torch.Tensor, device: str | None) -> torch.Tensor:
    if device is None and isinstance(tensor, nn.Parameter):
        return tensor
    with torch.no_grad():
        if device == "meta":
            data = torch.empty_like(tensor, device="meta")
        else:
            data = tensor.detach().to(device or tensor.device, copy=True)
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data
