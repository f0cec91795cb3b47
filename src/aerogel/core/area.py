"""Areas: packages that can be called by their own name."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Area(ModuleType):
    """Makes a package callable as the function that carries its name.

    ``aerogel.condense`` is both the package and the public call. Importing a submodule binds the package to
    that attribute, whatever was there before, so the package itself has to answer the call. An area's
    ``__init__`` says so in one line: ``sys.modules[__name__].__class__ = Area``.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function named like the package."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)
