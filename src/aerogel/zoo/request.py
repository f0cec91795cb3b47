"""What a caller asks of a data source, and the interface that every source answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from aerogel.core.config import nearest
from aerogel.core.progress import announce
from aerogel.errors import ConfigError, DataError, compose

if TYPE_CHECKING:
    from aerogel.zoo.imageset import ImageSet

Split = Literal["train", "test"]
ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "val", "valid"),
}
MEMORY_BYTES = 4 * 2**30
"""Above this, pixels of a known size are decoded to a file on disk and not into memory."""
SMALLEST_PX = 8
"""The least height and width: three halvings, as in a three-block ConvNet, leave one pixel of eight."""
UNSTATED = "not stated"


@dataclass(frozen=True)
class Request:
    """Say which part of a source to read and in what form; see `load_images` for the fields."""

    split: Split = "train"
    size: int | None = None
    channels: Literal[1, 3] | None = None
    image_column: str | None = None
    label_column: str | None = None
    class_names: tuple[str, ...] | None = None
    skip_bad: bool = False
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        problems = []
        if self.split not in ALIASES:
            near = nearest(str(self.split), list(ALIASES))
            problems.append(f"split {self.split!r}" + (f" (did you mean {near!r}?)" if near else ""))
        if self.size is not None and self.size < SMALLEST_PX:
            problems.append(f"size {self.size}")
        if self.channels not in (None, 1, 3):
            problems.append(f"channels {self.channels!r}")
        if problems:
            expected = f"split 'train' or 'test', size >= {SMALLEST_PX} px or None, channels 1, 3 or None"
            raise ConfigError(compose(expected, ", ".join(problems), "change these arguments"))


class Source(Protocol):
    """A place that labelled images can be read from."""

    def splits(self) -> tuple[str, ...]:
        """List which of "train" and "test" the source offers, without reading pixels."""
        ...

    def read(self, request: Request) -> ImageSet:
        """Read one split; raise DataError with every problem found."""
        ...


def match_split(split: str, available: Collection[str]) -> str | None:
    """Pick the available name that stands for `split`, by the order of its aliases; None without one."""
    return next((name for name in ALIASES[split] if name in available), None)


def list_matches(available: Collection[str]) -> tuple[str, ...]:
    """List which of "train" and "test" have a name among the available ones."""
    return tuple(split for split in ALIASES if match_split(split, available) is not None)


def require_split(split: str, available: Collection[str], where: str) -> str:
    """Pick the available name for `split`, saying so when it goes by another name.

    Raises:
        DataError: no available name stands for it.
    """
    found = match_split(split, available)
    if found is None:
        names = ", ".join(sorted(available)) or "none"
        remedy = "hold out a share of the training images (load_splits does it), or add the split"
        raise DataError(compose(f"a {split!r} split in {where}", f"the splits {names}", remedy))
    if found != split:
        announce(f"{where}: the split {found!r} serves as {split!r}, because there is none of that name.")
    return found
