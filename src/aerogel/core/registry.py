"""Names for things, and help for those who misspell them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from aerogel.errors import ConfigError, UnknownNameError, compose

__all__ = ["Registry", "nearest"]

T = TypeVar("T")
Registered = TypeVar("Registered")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Find the known name that a mistyped one most likely meant, or None when none is close."""
    import difflib

    folded = {known.lower().replace("-", "_"): known for known in names}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


class Registry(Generic[T]):
    """Map the names that users write to what they mean.

    ``noun`` says in messages what is being named, such as "student".
    """

    def __init__(self, noun: str) -> None:
        """Start without names."""
        self._noun = noun
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Enter the decorated object under a name.

        Raises:
            ConfigError: the name is taken.
        """

        def enter(item: T) -> T:
            if name in self._items:
                raise ConfigError(
                    compose(f"a new name for the {self._noun}", f"{name!r}, which is taken", "choose another")
                )
            self._items[name] = item
            return item

        return enter

    def get(self, name: str) -> T:
        """Look up a name.

        Raises:
            UnknownNameError: nothing has that name; the message lists the names and points to the nearest.
        """
        if name in self._items:
            return self._items[name]
        close = nearest(name, self._items)
        raise UnknownNameError(
            compose(
                f"the name of a {self._noun} ({', '.join(self.names()) or 'none are known'})",
                repr(name),
                f"did you mean {close!r}?" if close else "choose one of the list",
            )
        )

    def names(self) -> tuple[str, ...]:
        """List the names in alphabetical order."""
        return tuple(sorted(self._items))
