"""What a run ran on: versions and machine, gathered without importing the packages asked about."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MAIN_PACKAGES", "count_cores", "environment", "versions"]

MAIN_PACKAGES = (
    "torch",
    "numpy",
    "transformers",
    "diffusers",
    "peft",
    "accelerate",
    "safetensors",
    "datasets",
    "pyarrow",
    "pillow",
)


def versions(names: Iterable[str] = MAIN_PACKAGES) -> dict[str, str]:
    """Look up the versions of Python, Aerogel and the named packages; those not installed are left out."""
    from aerogel import __version__

    found = {"python": platform.python_version(), "aerogel": __version__}
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version:
            found[name] = version
    return found


def environment() -> dict[str, str]:
    """Describe the machine and the installed packages, ready to be pasted into a bug report."""
    found = versions()
    described = {
        "python": f"{found['python']} ({sys.implementation.name})",
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": str(count_cores()),
        "memory": _memory(),
        "gpu": _gpu_model(),
    }
    return {"aerogel": found["aerogel"], **described} | {
        n: found.get(n, "not installed") for n in MAIN_PACKAGES
    }


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _gpu_model(folder: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    models = []
    try:
        for information in sorted(folder.glob("*/information")):
            for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    models.append(value.strip())
    except OSError:
        pass
    return ", ".join(models or _ask_torch()) or "none found"


def _ask_torch() -> list[str]:
    """Name the GPUs that torch has at work in this process: some machines hide the driver's folder."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def count_cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"
