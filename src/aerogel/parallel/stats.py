"""What a parallel run costs and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from aerogel.parallel.exchange import message_bytes
from aerogel.parallel.layout import Layout
from aerogel.parallel.rounds import predict_speedup
from aerogel.parallel.seating import plan_messages, seat_devices
from aerogel.parallel.session import Timing


@dataclass(frozen=True)
class LaneStats:
    """Hold the figures of one denoiser at one input shape and guidance branch.

    ``shares`` are the parts' shares of the cost, ``balance`` the largest over the ideal one.
    ``bytes_per_round`` is what travels between the parts in every round, ``resident_bytes`` what the weights
    of each worker process weigh (none where processes hold whole denoisers). ``predicted_speedup`` is that of
    equations 6 to 8 of arXiv 2406.06911 for the steps of the last image, traffic and glue left out.
    ``warmup_step_s`` and ``parallel_step_s`` are medians in seconds, the first step of a lane left out, which
    makes buffers and kernels. They are None before there is one.
    """

    denoiser: str
    devices: int
    shares: tuple[float, ...]
    balance: float
    bytes_per_round: int
    steps: int
    rounds: int
    predicted_speedup: float
    warmup_step_s: float | None
    parallel_step_s: float | None
    resident_bytes: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the figures in a few lines."""
        shares = " ".join(f"{share:.1%}" for share in self.shares)
        lines = [
            f"{self.denoiser}: {self.devices} devices, shares {shares} (balance {self.balance:.3f})",
            f"  {self.bytes_per_round / 1e6:.2f} MB per round, {self.rounds} rounds for {self.steps} steps",
            f"  predicted speed-up {self.predicted_speedup:.2f}",
        ]
        if self.warmup_step_s is not None and self.parallel_step_s is not None:
            ratio = self.warmup_step_s / self.parallel_step_s
            lines.append(
                f"  a step took {1e3 * self.parallel_step_s:.1f} ms, in the warm-up "
                f"{1e3 * self.warmup_step_s:.1f} ms ({ratio:.2f} times as long)"
            )
        if self.resident_bytes:
            held = " ".join(f"{each / 1e6:.1f}" for each in self.resident_bytes)
            lines.append(f"  weights held by each worker: {held} MB")
        return "\n".join(lines)


@dataclass(frozen=True)
class Stats:
    """Hold the figures of a run, for each denoiser, input shape and guidance branch."""

    lanes: tuple[LaneStats, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can carry them."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the figures for people."""
        return "\n".join(map(str, self.lanes)) or "nothing was denoised yet"


def count_round_bytes(layout: Layout, stride: int) -> int:
    """Return what travels between the parts in one round."""
    return sum(map(message_bytes, plan_messages(layout, seat_devices(layout, stride))))


def sum_up(
    denoiser: str,
    layout: Layout,
    timings: Sequence[Timing],
    *,
    stride: int,
    warmup: int,
    last: Sequence[Timing],
    resident_bytes: Sequence[int] = (),
) -> LaneStats:
    """Return the figures of one lane; ``last`` are the rounds of its last image."""
    partition = layout.partition
    steps = sum(each.steps for each in last)
    fresh = [each.seconds for each in timings[1:] if each.fresh]
    parallel = [each.seconds / each.steps for each in timings if not each.fresh]
    return LaneStats(
        denoiser=denoiser,
        devices=partition.components + stride - 1,
        shares=tuple(partition.loads),
        balance=partition.balance,
        bytes_per_round=count_round_bytes(layout, stride),
        steps=steps,
        rounds=len(last),
        predicted_speedup=predict_speedup(
            max(1, steps), warmup=warmup, stride=stride, slowest_share=max(partition.loads)
        ),
        warmup_step_s=median(fresh) if fresh else None,
        parallel_step_s=median(parallel) if parallel else None,
        resident_bytes=tuple(resident_bytes),
    )
