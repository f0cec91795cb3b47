"""Show who runs what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from aerogel.parallel.layout import Layout
from aerogel.parallel.stats import count_round_bytes


@dataclass(frozen=True)
class Plan:
    """Hold the layouts of each denoiser, one for every input shape, at a stride."""

    layouts: Mapping[str, Sequence[Layout]]
    stride: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can carry it."""
        return {
            name: [
                {
                    "components": layout.partition.components,
                    "devices": layout.partition.components + self.stride - 1,
                    "balance": layout.partition.balance,
                    "shares": list(layout.partition.loads),
                    "bytes_per_round": count_round_bytes(layout, self.stride),
                    "folded": layout.partition.folded,
                    "units": dict(zip(layout.flow.names, layout.partition.owners, strict=True)),
                }
                for layout in layouts
            ]
            for name, layouts in self.layouts.items()
        }

    def __str__(self) -> str:
        """Return the plan for people: a line for every run of units on one device."""
        lines = [
            line
            for name, layouts in self.layouts.items()
            for layout in layouts
            for line in _describe(name, layout, self.stride)
        ]
        return "\n".join(lines) or "nothing was laid out yet: the plan is made at the first call"


def _describe(name: str, layout: Layout, stride: int) -> list[str]:
    partition = layout.partition
    lines = [
        f"{name}: {partition.components} components, balance {partition.balance:.3f}, "
        f"{count_round_bytes(layout, stride) / 1e6:.2f} MB per round"
    ]
    pairs = zip(partition.owners, layout.flow.names, strict=True)
    for owner, group in groupby(pairs, key=lambda pair: pair[0]):
        names = [unit for _, unit in group]
        units = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} units)"
        lines.append(f"  device {owner} ({partition.loads[owner]:.1%} of the work): {units}")
    if stride > 1:
        lines.append(f"  device {partition.components}: a copy of what device {partition.tail} runs")
    return lines
