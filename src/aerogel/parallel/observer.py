"""See every operation of a forward pass: what it reads, gives and multiplies, what it decides on values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
# torch counts the attention of GPUs alone; on CPUs the arguments are the same.
_FLOPS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
}

# These hand values over without an operation that a dispatch mode would see.
_READINGS = frozenset({"tolist", "numpy", "__array__"})

# These take a shape, a dtype and a device of a tensor, and no value.
_FORMS = frozenset(
    {
        *("new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"),
        *("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"),
    }
)

Passed = Callable[[list[Tensor], list[Tensor]], None]
Decided = Callable[[list[Tensor]], None]
Multiplied = Callable[[int], None]


@contextmanager
def observe(passed: Passed, decided: Decided, multiplied: Multiplied) -> Iterator[None]:
    """Report the operations of the context: (inputs, outputs), (what they look at), (multiply-accumulates).

    Looked at are tensors that become numbers, truths, lists or arrays, and those whose values set the shape
    of a result (the places that are not zero, for one).
    """
    with _Operations(passed, decided, multiplied), _Readings(decided):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, passed: Passed, decided: Decided, multiplied: Multiplied) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._passed, self._decided, self._multiplied = passed, decided, multiplied

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in _FLOPS:
            self._multiplied(_FLOPS[packet](*args, **kwargs, out_val=output) // 2)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self._decided(_truths(args[1]) if packet is _aten.index else _list_tensors(args))
        if packet.__name__ not in _FORMS:
            self._passed(_list_tensors([*args, *kwargs.values()]), _list_tensors([output]))
        return output


def _list_tensors(values: Sequence[Any]) -> list[Tensor]:
    found = []
    for each in values:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found.extend(_list_tensors(each))
    return found


def _truths(indices: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the indices that pick as many as hold; numbers pick as many as there are of them."""
    return [each for each in indices if each is not None and each.dtype in (torch.bool, torch.uint8)]


class _Readings(TorchFunctionMode):
    def __init__(self, decided: Decided) -> None:
        super().__init__()
        self._decided = decided

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READINGS:
            self._decided(_list_tensors(args))
        return func(*args, **(kwargs or {}))
