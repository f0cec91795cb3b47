"""Count multiply-accumulate operations without running the model."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aerogel.errors import DataError, DeviceError, compose
from aerogel.measure.replica import copy_model
from aerogel.measure.results import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_aten = torch.ops.aten
_WEIGHTED = (_aten.mm, _aten.addmm, _aten.mv, _aten.addmv, _aten.convolution)
_BATCHED = (_aten.bmm, _aten.baddbmm)
_COPYING = (_aten._to_copy, _aten.clone)


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one forward pass, for the batch that was given."""

    linear: int  # linear layers and convolutions: products with a weight
    attention: int  # products between activations: queries with keys, attention weights with values

    @property
    def with_attention(self) -> int:
        """Everything that was counted."""
        return self.linear + self.attention

    def measurements(self) -> tuple[Measurement, Measurement]:
        """Return both readings, so that neither can be mistaken for the other."""
        return (
            Measurement("MACs, linear and convolution only", self.linear, "MACs"),
            Measurement("MACs, with attention products", self.with_attention, "MACs"),
        )


def count_macs(model: nn.Module, *inputs: Any, execute: bool = False, **keyword_inputs: Any) -> MacCount:
    """Count the multiply-accumulates of one forward pass in evaluation mode, batch included.

    An input is a shape (a tuple of ints: zeros in the model's floating-point type), an example tensor (only
    its shape and dtype matter), or anything else the model takes, passed on as it is; lists and dicts may
    hold either. The pass runs on a copy without memory (the meta device), so that it is fast at any size. The
    model itself is neither moved nor changed and its hooks do not run. ``execute=True`` runs a real copy on
    the CPU instead, for models whose path depends on values.

    Counted are matrix products and convolutions; biases, norms, activations and resizing are not. A product
    with a weight is linear, also where torch sends it down the batched path; a batched product without one is
    attention.

    Raises:
        DataError: a shape with a dimension below 1.
        DeviceError: the model cannot run on shapes alone.
    """
    device = "cpu" if execute else "meta"
    replica = copy_model(model, device)
    dtype = next((p.dtype for p in replica.parameters() if p.is_floating_point()), torch.get_default_dtype())
    args = [_place(each, device, dtype) for each in inputs]
    kwargs = {name: _place(each, device, dtype) for name, each in keyword_inputs.items()}
    products = _BatchedProducts(replica)
    with _countable_kernels(), FlopCounterMode(display=False, custom_mapping=products.formulas()) as counter:
        try:
            replica(*args, **kwargs)
        except RuntimeError as error:
            if execute:
                raise
            raise _refused(error) from error
    macs = {packet: flops // 2 for packet, flops in counter.get_flop_counts().get("Global", {}).items()}
    linear = products.weighted + sum(count for packet, count in macs.items() if packet in _WEIGHTED)
    return MacCount(linear, sum(macs.values()) - linear)


class _BatchedProducts:
    """Tell batched products with a weight from those between activations.

    torch computes a linear layer on a non-contiguous input, and einsum with a parameter, as a batched
    product; by operation alone it would pass for attention. A weight is recognised by its storage, which its
    views share; copies of it (a cast, a contiguous clone) are followed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weighted = 0
        # Kept alive: a freed storage's number is given to the next one.
        self._storages = {_identity(each): each.untyped_storage() for each in model.parameters()}

    def formulas(self) -> dict[Any, Callable[..., int]]:
        """Return FLOP formulas for FlopCounterMode's ``custom_mapping``."""
        batched, copied = _on_tensors(self._count), _on_tensors(self._follow)
        product: dict[Any, Callable[..., int]] = {_aten.mv: _count_mv, _aten.addmv: _count_addmv}
        return {**product, **dict.fromkeys(_BATCHED, batched), **dict.fromkeys(_COPYING, copied)}

    def _count(self, *args: Any, out_val: torch.Tensor, **kwargs: Any) -> int:
        left, right = [each for each in args if isinstance(each, torch.Tensor)][-2:]
        flops = 2 * prod(out_val.shape) * int(left.shape[-1])
        if _identity(left) in self._storages or _identity(right) in self._storages:
            self.weighted += flops // 2
        return flops

    def _follow(self, source: torch.Tensor, *args: Any, out_val: torch.Tensor, **kwargs: Any) -> int:
        if _identity(source) in self._storages:
            self._storages[_identity(out_val)] = out_val.untyped_storage()
        return 0


def _on_tensors(method: Callable[..., int]) -> Callable[..., int]:
    def formula(*args: Any, **kwargs: Any) -> int:
        return method(*args, **kwargs)

    # FlopCounterMode's mark for formulas that want tensors, not shapes.
    formula._get_raw = True  # type: ignore[attr-defined]
    return formula


def _count_mv(matrix: Sequence[int], vector: Sequence[int], **kwargs: Any) -> int:
    return 2 * prod(matrix)


def _count_addmv(added: Sequence[int], matrix: Sequence[int], vector: Sequence[int], **kwargs: Any) -> int:
    return 2 * prod(matrix)


def _identity(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _countable_kernels() -> Iterator[None]:
    """Switch off fused kernels, in which the counter sees nothing; keep the caller's random state."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(setattr, torch.backends.mkldnn, "enabled", torch.backends.mkldnn.enabled)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment] # its LSTM is fused
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        yield


def _place(value: Any, device: str, dtype: torch.dtype) -> Any:
    if (
        isinstance(value, tuple)
        and value
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    ):
        if min(value) < 1:
            raise DataError(
                compose(
                    "a shape with dimensions of at least 1",
                    str(tuple(value)),
                    "pass, for example, (1, 3, 224, 224)",
                )
            )
        return torch.zeros(tuple(value), dtype=dtype, device=device)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_place(each, device, dtype) for each in value)
    if isinstance(value, dict):
        return {key: _place(each, device, dtype) for key, each in value.items()}
    if isinstance(value, torch.Tensor):
        if device == "meta":
            return torch.empty_like(value, device="meta", requires_grad=False)
        return value.detach().to(device, copy=True)
    return value


def _refused(error: RuntimeError) -> DeviceError:
    lines = str(error).splitlines()
    return DeviceError(
        compose(
            "a forward pass that needs shapes only",
            f"{type(error).__name__}: {lines[0] if lines else ''}",
            "pass execute=True to count on the CPU, and example tensors where the model wants whole numbers "
            "(token ids) rather than a shape",
        )
    )
