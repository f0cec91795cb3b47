"""Choosing where and in which numbers to compute, with the reason."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from aerogel.core.progress import announce
from aerogel.core.registry import nearest
from aerogel.errors import ConfigError, DeviceError, compose

__all__ = ["Choice", "choose_device", "choose_dtype", "is_cuda", "limit_threads"]

_DEVICES = ("auto", "cpu", "cuda", "mps")
_DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
    "half": "float16",
}


@dataclass(frozen=True)
class Choice:
    """Hold what was chosen, in torch's spelling, and why."""

    value: str
    reason: str


def choose_device(requested: str = "auto") -> Choice:
    """Choose the device to compute on: the CUDA device of this process where there is one, else the CPU.

    In a distributed run process number LOCAL_RANK takes the CUDA device of that number. Apple's "mps" is
    taken on request only, because results there differ from those elsewhere.

    Raises:
        DeviceError: the name is unknown or this machine has no such device.
    """
    import torch

    kind, _, number = requested.partition(":")
    if kind not in _DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        close = nearest(requested, _DEVICES)
        raise DeviceError(
            compose(
                '"auto", "cpu", "cuda", "cuda:<number>" or "mps" as device',
                repr(requested),
                f"did you mean {close!r}?" if close and close != requested else "pass one of these",
            )
        )
    if kind == "cpu":
        return Choice("cpu", "it was asked for")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(
                compose("a machine with Apple's mps", "one without", 'pass device="cpu" or "auto"')
            )
        return Choice("mps", "it was asked for")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto" and count == 0:
        return Choice("cpu", "no CUDA device was found")
    if count == 0:
        remedy = 'pass device="cpu" or "auto", or install a torch built for CUDA and its driver'
        raise DeviceError(compose("a CUDA device", f"none that torch {torch.__version__} can use", remedy))
    return _choose_cuda(int(number) if number else None, count, asked=kind == "cuda")


def choose_dtype(requested: str, device: str) -> Choice:
    """Choose the number format for a device: bfloat16 where CUDA computes in it, else float32.

    If it is to be bfloat16 on an x86 processor without AVX-512, it is said once that float32 is sooner done.

    Raises:
        DeviceError: the name is unknown or the device cannot compute in that format.
    """
    on_cuda = is_cuda(device)
    if requested == "auto":
        if on_cuda and _has_bfloat16():
            return Choice("bfloat16", "the CUDA device computes in it natively")
        return Choice(
            "float32", "the CUDA device has no native bfloat16" if on_cuda else "it is exact on every device"
        )
    value = _DTYPES.get(requested.removeprefix("torch."))
    if value is None:
        close = nearest(requested, ["auto", *_DTYPES])
        raise DeviceError(
            compose(
                '"auto", "float32", "bfloat16" or "float16" as dtype',
                repr(requested),
                f"did you mean {close!r}?" if close else "pass one of these",
            )
        )
    if value == "float16" and device == "cpu":
        raise DeviceError(
            compose("float32 or bfloat16 on the CPU", requested, 'pass dtype="float32" or "auto"')
        )
    if value == "bfloat16" and on_cuda and not _has_bfloat16():
        raise DeviceError(
            compose("a CUDA device with native bfloat16", "one without", 'pass dtype="float16" or "auto"')
        )
    if value == "bfloat16" and device == "cpu":
        _warn_of_emulation()
    return Choice(value, "it was asked for")


def is_cuda(device: object) -> bool:
    """Tell whether a device, as torch has it or by name, is a CUDA one."""
    return str(device).partition(":")[0] == "cuda"


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Let torch's operators use so many CPU threads in a block, and as many as before after it.

    Raises:
        ConfigError: the count is below one.
    """
    if count < 1:
        raise ConfigError(compose("one thread or more", str(count), "pass the number of cores to use"))
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choose_cuda(number: int | None, count: int, *, asked: bool) -> Choice:
    reason = "it was asked for" if asked else "a CUDA device was found"
    if number is None:
        rank = os.environ.get("LOCAL_RANK", "")
        number = int(rank) if rank.isdecimal() else 0
        if rank:
            reason += f", and this is local process {number}"
    if number >= count:
        raise DeviceError(
            compose(
                f"a CUDA device from 0 to {count - 1}",
                f"number {number}",
                "pass such a number, or start as many processes as there are devices",
            )
        )
    return Choice(f"cuda:{number}", reason)


@cache
def _warn_of_emulation() -> None:
    import torch

    older = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if older and platform.machine().lower() in ("x86_64", "amd64"):
        announce("bfloat16 takes many times as long as float32 here: the processor has no AVX-512")


def _has_bfloat16() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
