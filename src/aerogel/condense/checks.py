"""Checks of single settings that need more than a comparison."""

from __future__ import annotations

# Where a network's attention heads have to share its width evenly.
WIDTH_STEPS = {"vit-t": 3, "swin-t": 3}


def check_width(name: str, network: str, width: int | None) -> list[str]:
    """Return what is wrong with the width of ``network``, given as the setting ``name``."""
    step = WIDTH_STEPS.get(network, 1)
    if width is None or width <= 0 or width % step == 0:
        return []
    return [f"{name}: expected a multiple of {step} for {network}; got {width}"]


def check_weak_teachers(wanted: int | tuple[int, ...]) -> list[str]:
    """Return what is wrong with a count of snapshots, or with a list of their numbers."""
    if isinstance(wanted, int):
        return [] if wanted > 0 else [f"weak_teachers: expected a number above 0; got {wanted}"]
    if wanted and min(wanted) > 0 and len(set(wanted)) == len(wanted):
        return []
    return [f"weak_teachers: expected numbers of snapshots from 1, each once; got {list(wanted)}"]


def last_weak_teacher(wanted: int | tuple[int, ...]) -> int:
    """Return how many snapshots there have to be: the count that is wanted, or the highest number."""
    return wanted if isinstance(wanted, int) else max(wanted)
