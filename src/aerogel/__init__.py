"""Take the weight out of vision AI, and print the receipt: what it cost, what it saved, what was lost.

Importing this package imports nothing else: every public name is resolved on first use (PEP 562), so that
``import aerogel`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aerogel.condense import condense, load_condensed
    from aerogel.errors import AerogelError
    from aerogel.parallel import parallelize
    from aerogel.slim import slim

__version__ = "0.1.0"

__all__ = ["AerogelError", "__version__", "condense", "load_condensed", "parallelize", "slim"]

# Public name -> (module, attribute). An area is its own package, which is callable: see aerogel.core.area.
# A new area adds its lines here, above and in __all__.
_HOMES: dict[str, tuple[str, str | None]] = {
    "AerogelError": ("aerogel.errors", "AerogelError"),
    "condense": ("aerogel.condense", None),
    "load_condensed": ("aerogel.condense", "load_condensed"),
    "parallelize": ("aerogel.parallel", "parallelize"),
    "slim": ("aerogel.slim", None),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = import_module(module)
    return home if attribute is None else getattr(home, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
