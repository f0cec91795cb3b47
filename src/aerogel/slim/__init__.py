"""Segmentation models made light: alternate pruning and distillation (SlimSAM)."""

__all__: list[str] = []
