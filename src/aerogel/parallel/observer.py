"""See every operation of a forward pass: what it reads, what it gives, and what it decides on values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# These hand values over without an operation that a dispatch mode would see.
_READINGS = frozenset({"tolist", "numpy", "__array__"})

Passed = Callable[[Any, Any], None]
Decided = Callable[[Any], None]


@contextmanager
def observe(passed: Passed, decided: Decided) -> Iterator[None]:
    """Report each operation of the context: ``passed(inputs, outputs)``, ``decided(what it looks at)``.

    It looks at tensors that it turns into numbers, truths, lists or arrays, and at those whose values set the
    shape of what it gives (the places that are not zero, for one).
    """
    with _Operations(passed, decided), _Readings(decided):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, passed: Passed, decided: Decided) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._passed, self._decided = passed, decided

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self._decided(_truths(args[1]) if func is torch.ops.aten.index.Tensor else args)
        self._passed((args, kwargs), output)
        return output


def _truths(indices: Any) -> list[Any]:
    """Return the indices that pick as many as hold; numbers pick as many as there are of them."""
    return [each for each in indices if each is not None and each.dtype in (torch.bool, torch.uint8)]


class _Readings(TorchFunctionMode):
    def __init__(self, decided: Decided) -> None:
        super().__init__()
        self._decided = decided

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READINGS:
            self._decided(args)
        return func(*args, **(kwargs or {}))
