"""Checks of single settings that need more than a comparison."""

from __future__ import annotations

from aerogel.condense.codecs.naming import parse_codec
from aerogel.errors import ConfigError

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


def check_residual(codec: str | None, epochs: int) -> list[str]:
    """Return what is wrong with the codec of residuals and the number of epochs whose views have them."""
    if (codec is None) != (epochs == 0) or epochs < 0:
        return [
            "residual_epochs: expected 1 or more beside a residual, else 0; "
            f"got {epochs} beside {'none' if codec is None else codec}"
        ]
    if codec is None:
        return []
    try:
        parts = parse_codec(codec).parts
    except ConfigError as fault:
        return [f"residual: {fault}"]
    if any(part.role in ("views", "classes") for part in parts):
        return [
            "residual: expected a codec of all classes and views (residual_epochs says of how many), such as "
            f"stored-vq256 or stored-int8; got {codec}"
        ]
    return []
