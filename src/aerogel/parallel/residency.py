"""Give each process the skeleton of a denoiser and the weights of just the parts that it runs."""

from __future__ import annotations

import io
import pickle
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from aerogel.errors import DeviceError, compose
from aerogel.parallel.flow import Flow
from aerogel.parallel.trace import TensorSpec

_SAMPLES = 8

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

    Of a weight with several names the first is given. Weights of classes of their own (quantised ones) are
    not among them: they are parts of the skeleton.
    """
    kept = set(owned)
    foreign = tuple(f"{name}." for name in flow.names if name not in kept)
    first: dict[int, str] = {}
    for name, tensor in list_weights(module).items():
        if _is_plain(tensor) and not name.startswith(foreign):
            first.setdefault(id(tensor), name)
    return list(first.values())


def _is_plain(value: Any) -> bool:
    return type(value) in (Tensor, nn.Parameter)


def count_weights(module: nn.Module, names: Iterable[str]) -> int:
    """Return the bytes of the weights called ``names``."""
    weights = list_weights(module)
    return sum(weights[name].nbytes for name in names)


@dataclass(frozen=True)
class _Outline:
    """Describe a weight that comes later."""

    name: str
    spec: TensorSpec
    is_parameter: bool


@dataclass(frozen=True)
class _Loose:
    """Hold a tensor that is no registered weight, and tell whether it belongs on the model's device."""

    number: int
    spec: TensorSpec
    data: bytes
    moves: bool


class _Pickler(pickle.Pickler):
    """Leave plain weights out: only what they look like is written."""

    def __init__(self, file: io.BytesIO, module: nn.Module) -> None:
        super().__init__(file)
        self._names: dict[int, str] = {}
        self._loose: dict[int, tuple[Tensor, _Loose]] = {}
        for name, tensor in list_weights(module).items():
            self._names.setdefault(id(tensor), name)

    def persistent_id(self, each: Any) -> Any:
        if not isinstance(each, Tensor):
            return None
        if not _is_plain(each):
            if each.device.type == "cpu":
                return None
            raise pickle.PicklingError(f"a {type(each).__name__} on {each.device}")
        if id(each) in self._names:
            return _Outline(self._names[id(each)], _spec_of(each), isinstance(each, nn.Parameter))
        if id(each) not in self._loose:
            spec = TensorSpec.of(each)
            flat = spec.copy(each.detach().cpu()).as_strided((each.numel(),), (1,))
            data = flat.view(torch.uint8).numpy().tobytes()
            self._loose[id(each)] = each, _Loose(len(self._loose), spec, data, each.device.type != "cpu")
        return self._loose[id(each)][1]

    def reducer_override(self, each: Any) -> Any:
        if isinstance(each, (type, FunctionType)) and each.__module__ == "__main__":
            raise pickle.PicklingError(f"{each.__qualname__} is defined in the script itself")
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: torch.device) -> None:
        super().__init__(file)
        self._where = where
        self._made: dict[str | int, Tensor] = {}

    def persistent_load(self, key: _Outline | _Loose) -> Tensor:
        spec = key.spec
        if isinstance(key, _Loose):
            flat = torch.empty(torch.Size(spec.shape).numel(), dtype=spec.dtype)
            flat.view(torch.uint8).copy_(torch.frombuffer(bytearray(key.data), dtype=torch.uint8))
            found = spec.view(flat)
            return self._made.setdefault(key.number, found.to(self._where) if key.moves else found)
        if key.name not in self._made:
            empty = torch.empty_strided(spec.shape, spec.strides, dtype=spec.dtype, device="meta")
            self._made[key.name] = nn.Parameter(empty, requires_grad=False) if key.is_parameter else empty
        return self._made[key.name]


def _spec_of(tensor: Tensor) -> TensorSpec:
    """Return the layout of ``tensor``, holes and all; that of its clone where places in memory are shared."""
    shape, strides = tuple(tensor.shape), tensor.stride()
    overlaps = any(step == 0 and size > 1 for size, step in zip(shape, strides, strict=True))
    return TensorSpec.of(tensor) if overlaps else TensorSpec(shape, strides, tensor.dtype)


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
                "move classes and functions of your script to a module, remove hooks, or start the script on "
                "every device with torchrun",
            )
        ) from error
    return file.getvalue()


def load_skeleton(data: bytes, where: torch.device) -> nn.Module:
    """Return the module that :func:`dump_skeleton` wrote, its weights on the meta device."""
    module: nn.Module = _Unpickler(io.BytesIO(data), where).load()
    return module


def place_weights(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put ``values`` in the places of the weights of these names, and of all that are the same as them."""
    weights = list_weights(module)
    names: dict[int, list[str]] = {}
    for name, tensor in weights.items():
        names.setdefault(id(tensor), []).append(name)
    for name, value in values.items():
        is_parameter = isinstance(weights[name], nn.Parameter)
        made = nn.Parameter(value, requires_grad=False) if is_parameter else value
        for each in names[id(weights[name])]:
            owner, _, leaf = each.rpartition(".")
            parent = module.get_submodule(owner)
            held: dict[str, Any] = parent._parameters if is_parameter else parent._buffers
            held[leaf] = made


def fingerprint(module: nn.Module) -> Hashable:
    """Return what changes when an adapter is put on, switched or merged, or FreeU or a processor is set."""
    signs: list[Hashable] = []
    for name, each in module.named_modules():
        held = vars(each)
        hooks = (*held["_forward_pre_hooks"], *held["_forward_hooks"])
        settings = repr([_plain(held[key]) for key in _SETTINGS if key in held])
        signs.append((name, type(each), hooks, settings))
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in parameters.items():
        # Tensors made in inference mode keep no count of their changes.
        signs.append((name, id(tensor), -1 if tensor.is_inference() else tensor._version))
    return *signs, _sample_bytes(parameters.values())


def _sample_bytes(tensors: Iterable[Tensor]) -> bytes:
    """Return a few values of each tensor: a change of ``tensor.data`` is counted nowhere."""
    samples = []
    for each in tensors:
        if _is_plain(each) and each.layout == torch.strided and not each.is_meta:
            held = each.untyped_storage().nbytes() // each.itemsize - each.storage_offset()
            count = min(held, each.numel())
            some = each.detach().as_strided((min(_SAMPLES, count),), (max(1, count // _SAMPLES),))
            samples.append(some.clone().view(torch.uint8))
    return torch.cat(samples).cpu().numpy().tobytes() if samples else b""


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
