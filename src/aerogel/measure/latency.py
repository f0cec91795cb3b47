"""Measure how long a call takes."""

from __future__ import annotations

import gc
from contextlib import contextmanager, nullcontext
from statistics import median, quantiles
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import torch

from aerogel.core.devices import limit_threads
from aerogel.errors import ConfigError, DeviceError, compose
from aerogel.measure.results import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def measure_latency(
    fn: Callable[[], object],
    *,
    name: str = "latency",
    warmup: int = 3,
    repeats: int = 20,
    threads: int | None = 1,
    device: str = "cpu",
) -> Measurement:
    """Time a call: the median in milliseconds and the interquartile range over ``repeats`` timed calls.

    The median, because one interruption by another process would move a mean. ``warmup`` calls run first and
    are not timed. One thread by default, because that is what repeats best on a shared machine; None leaves
    torch's count alone. On an accelerator the queue is drained before and after every timed call. The garbage
    collector rests while the clock runs. One repeat has no spread.

    Raises:
        ConfigError: a count out of range, or a device type that cannot be timed.
        DeviceError: the device is not there.
    """
    _check_counts(warmup=warmup, repeats=repeats, threads=threads)
    drain = _queue_drain(device)
    times_ms: list[float] = []
    with nullcontext() if threads is None else limit_threads(threads), _resting_collector():
        for _ in range(warmup):
            fn()
        for _ in range(repeats):
            drain()
            start = perf_counter_ns()
            fn()
            drain()
            times_ms.append((perf_counter_ns() - start) / 1e6)
        used = torch.get_num_threads()
    note = f"{device}, {used} thread(s), {warmup} warm-up call(s)"
    if repeats == 1:
        return Measurement(name, times_ms[0], "ms", samples=1, note=note)
    low, _, high = quantiles(times_ms, n=4, method="inclusive")
    return Measurement(name, median(times_ms), "ms", high - low, "IQR", repeats, note)


def _check_counts(*, warmup: int, repeats: int, threads: int | None) -> None:
    limits = (("warmup", warmup, 0), ("repeats", repeats, 1), ("threads", threads, 1))
    for name, value, least in limits:
        if name == "threads" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                compose(f"{name} of at least {least}", repr(value), f"pass a whole number from {least} up")
            )


def _queue_drain(device: str) -> Callable[[], Any]:
    """Return the call that waits until everything queued on the device is done."""
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            compose("a device such as 'cpu' or 'cuda:0'", repr(device), "correct it")
        ) from error
    if where.type == "cpu":
        return lambda: None
    if where.type not in ("cuda", "mps", "xpu"):
        raise ConfigError(compose("cpu, cuda, mps or xpu", repr(device), "time the call on one of these"))
    backend = getattr(torch, where.type)
    if not backend.is_available() or (where.index or 0) >= backend.device_count():
        raise DeviceError(
            compose(f"device {device!r}", "no such device on this machine", "pass device='cpu'")
        )
    if where.type == "mps":
        return torch.mps.synchronize
    return lambda: backend.synchronize(where)


@contextmanager
def _resting_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
