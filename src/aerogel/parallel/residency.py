"""Give each process the skeleton of a denoiser and the weights of just the parts that it runs."""

from __future__ import annotations

import io
import pickle
from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.errors import DeviceError, compose
from aerogel.parallel.flow import Flow

# What peft, FreeU and attention processors keep outside of the weights.
_SETTINGS = (
    "scaling",
    "_active_adapter",
    "_disable_adapters",
    "merged_adapters",
    "s1",
    "s2",
    "b1",
    "b2",
    "processor",
    "training",
)


def list_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of ``module``, under all of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def needed_weights(module: nn.Module, flow: Flow, owned: Iterable[str]) -> list[str]:
    """Return the names of the weights that a device reads: those of its units and of all glue.

    Of a weight with several names the first is given.
    """
    foreign = tuple(f"{name}." for name in flow.names if name not in set(owned))
    first: dict[int, str] = {}
    for name, tensor in list_weights(module).items():
        if not name.startswith(foreign):
            first.setdefault(id(tensor), name)
    return list(first.values())


def count_weights(module: nn.Module, names: Iterable[str]) -> int:
    """Return the bytes of the weights called ``names``."""
    weights = list_weights(module)
    return sum(weights[name].nbytes for name in names)


class _Pickler(pickle.Pickler):
    """Leave plain weights out: only what they look like is written."""

    def __init__(self, file: io.BytesIO, module: nn.Module) -> None:
        super().__init__(file)
        self._names: dict[int, str] = {}
        for name, tensor in list_weights(module).items():
            self._names.setdefault(id(tensor), name)

    def persistent_id(self, each: Any) -> Any:
        name = self._names.get(id(each)) if type(each) in (Tensor, nn.Parameter) else None
        if name is None:
            return None
        return name, tuple(each.shape), each.stride(), each.dtype, isinstance(each, nn.Parameter)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._made: dict[str, Tensor] = {}

    def persistent_load(self, key: Any) -> Tensor:
        name, shape, strides, dtype, is_parameter = key
        if name not in self._made:
            empty = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            self._made[name] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
        return self._made[name]


def dump_skeleton(name: str, module: nn.Module) -> bytes:
    """Return ``module`` without its weights.

    Raises:
        DeviceError: it holds something that another process cannot be given.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, module).dump(module)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise DeviceError(
            compose(
                f"a denoiser {name!r} that another process can be given",
                f"one that cannot be pickled ({error})",
                "remove hooks and functions defined in your script from it, or start the script on every "
                "device with torchrun",
            )
        ) from error
    return file.getvalue()


def load_skeleton(data: bytes) -> nn.Module:
    """Return the module that :func:`dump_skeleton` wrote, its weights on the meta device."""
    module: nn.Module = _Unpickler(io.BytesIO(data)).load()
    return module


def place_weight(module: nn.Module, name: str, value: Tensor) -> None:
    """Put ``value`` in the place of the weight called ``name``, and of all that are the same as it."""
    weights = list_weights(module)
    same = [each for each, tensor in weights.items() if tensor is weights[name]]
    made = nn.Parameter(value, requires_grad=False) if isinstance(weights[name], nn.Parameter) else value
    for each in same:
        owner, _, leaf = each.rpartition(".")
        parent = module.get_submodule(owner)
        if isinstance(made, nn.Parameter):
            parent._parameters[leaf] = made
        else:
            parent._buffers[leaf] = made


def fingerprint(module: nn.Module) -> Hashable:
    """Return what changes when an adapter is put on, switched or merged, or FreeU or a processor is set."""
    signs: list[Hashable] = []
    for name, each in module.named_modules():
        held = vars(each)
        signs.append((name, type(each), repr([_plain(held[key]) for key in _SETTINGS if key in held])))
    for name, tensor in module.named_parameters(remove_duplicate=False):
        # Tensors made in inference mode keep no count of their changes.
        signs.append((name, id(tensor), -1 if tensor.is_inference() else tensor._version))
    return tuple(signs)


def _plain(value: Any) -> Any:
    """Return ``value`` as far as it is made of numbers and text."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    held = {key: each for key, each in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    plain = {key: each for key, each in held.items() if isinstance(each, (bool, int, float, str, list))}
    return type(value).__name__, repr(plain)
