"""A segmenter too big for the device, slimmed on photos without labels (SlimSAM)."""

from __future__ import annotations

__all__: list[str] = []
