from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from aerogel.errors import ConfigError, DeviceError
from aerogel.measure import latency
from aerogel.measure.latency import measure_latency


class Clock:
    """A clock that only the timed call moves, by a given number of milliseconds each time."""

    def __init__(self, steps_ms: list[float]) -> None:
        self.now_ns = 0
        self.steps: Iterator[float] = iter(steps_ms)

    def read(self) -> int:
        return self.now_ns

    def call(self) -> None:
        self.now_ns += round(next(self.steps) * 1e6)


def measure(monkeypatch: pytest.MonkeyPatch, steps_ms: list[float], **options: Any) -> Any:
    clock = Clock(steps_ms)
    monkeypatch.setattr(latency, "perf_counter_ns", clock.read)
    measured = measure_latency(clock.call, **options)
    assert next(clock.steps, None) is None, "every call was made"
    return measured


def test_median_and_quartiles_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measure(monkeypatch, [500.0, 400.0, 1.0, 2.0, 3.0, 4.0, 100.0], warmup=2, repeats=5)
    assert measured.value == 3.0
    assert (measured.spread, measured.spread_kind) == (2.0, "IQR")
    assert (measured.unit, measured.samples) == ("ms", 5)
    assert measured.note == "cpu, 1 thread(s), 2 warm-up call(s)"


def test_one_repeat_has_no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measure(monkeypatch, [7.0], warmup=0, repeats=1)
    assert (measured.value, measured.spread, measured.samples) == (7.0, None, 1)


@pytest.mark.parametrize("asked", [1, 2, None])
def test_threads_and_collector_are_given_back(asked: int | None) -> None:
    before = torch.get_num_threads()
    seen: set[tuple[int, bool]] = set()

    def observe() -> None:
        seen.add((torch.get_num_threads(), gc.isenabled()))

    measure_latency(observe, threads=asked, repeats=2)
    assert seen == {(asked or before, False)}
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_a_failing_call_leaves_nothing_changed() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, threads=before + 1)
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_real_work_takes_time() -> None:
    a = torch.ones(128, 128)
    assert 0 < measure_latency(lambda: a @ a, repeats=5).value < 1000


@pytest.mark.parametrize(
    "wrong", [{"repeats": 0}, {"warmup": -1}, {"threads": 0}, {"repeats": 2.5}, {"threads": True}]
)
def test_counts_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        measure_latency(lambda: None, **wrong)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        measure_latency(lambda: None, device="cuda:99")
    with pytest.raises(ConfigError):
        measure_latency(lambda: None, device="meta")
    with pytest.raises(ConfigError):
        measure_latency(lambda: None, device="toaster")
