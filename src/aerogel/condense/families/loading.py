"""Find a backbone of the label generator by its name."""

from __future__ import annotations

from pathlib import Path

from aerogel.condense.families.backbone import Backbone


def load_backbone(name: str, grid: int | None = None, *, size: int = 0) -> Backbone:
    """Load a backbone by zoo name (``aerogel/...``), file of weights, folder, or Hugging Face hub name.

    A file is EfficientNet-Lite0 as safetensors, a folder or hub name an image network of transformers.
    ``grid`` asks for features of that many cells per side, None for what suits the backbone and images of
    ``size`` pixels. Nothing is fetched for a file or folder, and code that lies beside weights is never run.

    Raises:
        UnknownNameError: no backbone of that name ships with Aerogel.
        DataError: the file, the folder or the hub's answer is no model that can be used.
        MissingDependencyError: transformers is not installed.
    """
    if name.startswith("aerogel/") and not Path(name).exists():
        from aerogel.condense.families.shipped import load_shipped

        return load_shipped(name, grid, size=size)
    if name.endswith(".safetensors") or Path(name).is_file():
        from aerogel.condense.families.efficientnet_lite import load_efficientnet_lite

        return load_efficientnet_lite(name, grid, size=size)
    from aerogel.condense.families.opening import load_transformer

    return load_transformer(name, grid, size=size)
