"""What every area stands on: settings, stored folders, stages, seeds, devices and progress."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.core.config import from_dict, load_config, save_config, to_dict, validate
    from aerogel.core.devices import Choice, choose_device, choose_dtype, limit_threads
    from aerogel.core.environment import versions
    from aerogel.core.folders import (
        FileEntry,
        Manifest,
        create_folder,
        read_manifest,
        seal_folder,
        sha256_file,
        verify_folder,
        write_bytes_atomic,
        write_text_atomic,
    )
    from aerogel.core.progress import announce, track
    from aerogel.core.randomness import derive_seed, permutation, seed_torch, uniforms
    from aerogel.core.registry import Registry, nearest
    from aerogel.core.stages import Stage, run_stage

__all__ = [
    "Choice",
    "FileEntry",
    "Manifest",
    "Registry",
    "Stage",
    "announce",
    "choose_device",
    "choose_dtype",
    "create_folder",
    "derive_seed",
    "from_dict",
    "limit_threads",
    "load_config",
    "nearest",
    "permutation",
    "read_manifest",
    "run_stage",
    "save_config",
    "seal_folder",
    "seed_torch",
    "sha256_file",
    "to_dict",
    "track",
    "uniforms",
    "validate",
    "verify_folder",
    "versions",
    "write_bytes_atomic",
    "write_text_atomic",
]

# The decorator config and the function environment are named like their modules: import them from there.
_HOMES = {
    "config": ("from_dict", "load_config", "save_config", "to_dict", "validate"),
    "devices": ("Choice", "choose_device", "choose_dtype", "limit_threads"),
    "environment": ("versions",),
    "folders": ("create_folder", "seal_folder", "verify_folder"),
    "files": ("sha256_file", "write_bytes_atomic", "write_text_atomic"),
    "manifests": ("FileEntry", "Manifest", "read_manifest"),
    "progress": ("announce", "track"),
    "randomness": ("derive_seed", "permutation", "seed_torch", "uniforms"),
    "registry": ("Registry", "nearest"),
    "stages": ("Stage", "run_stage"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
